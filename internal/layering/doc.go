// Package layering holds tests of what no compiler checks: which package may import which, what is read where, and
// that the files beside the code (the container files, the documentation) agree with it. It has no code of its own.
package layering

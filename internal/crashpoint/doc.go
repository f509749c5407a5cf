// Package crashpoint marks where a program may die at the worst moment. In a test build (build tag crashpoints, see
// internal/testbuild) the process kills itself by SIGKILL at the point that TRUENORTH_CRASH_AT names: "apply.committed", or
// "apply.committed:3" to die when it gets there for the third time. In every other build the marks are empty functions, of
// which the compiler leaves nothing.
//
// A library of failpoints would rewrite the sources or keep a table of points in the product. A kill needs neither.
//
// The tests of this package hold a case for every point in the sources, by its name, which stands in one place only.
package crashpoint

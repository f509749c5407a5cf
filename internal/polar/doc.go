// Package polar is what truenorth knows about Polar (polar.sh) as a service:
// the signature and the envelope of its webhooks, the documents it sends, and
// a small client of its API.
//
// Everything that is read is read leniently, because Polar adds fields, enum
// values and event types all the time: a value of an unexpected type reads as
// absent, and only what the caller cannot do without is an error.
package polar

package store

import "errors"

// Isolate does something with items as a whole. Where Postgres refuses their content, it halves them until the one at
// fault stands by itself, which is left to alone: so one bad item never fails its neighbours. do must leave nothing
// behind where it returns ErrRefused. The first other error ends it.
func Isolate[T any](items []T, do func(items []T) error, alone func(item T, refused error) error) error {
	err := do(items)
	switch {
	case !errors.Is(err, ErrRefused), len(items) == 0:
		return err
	case len(items) == 1:
		return alone(items[0], err)
	}
	half := len(items) / 2
	if err := Isolate(items[:half], do, alone); err != nil {
		return err
	}
	return Isolate(items[half:], do, alone)
}

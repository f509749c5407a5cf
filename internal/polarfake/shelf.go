package polarfake

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// rank is where an object stands in an order: by a moment, and among equals by the order of creation.
type rank struct {
	at       time.Time
	sequence int64
}

func (r rank) compare(other rank) int {
	return cmp.Or(r.at.Compare(other.at), cmp.Compare(r.sequence, other.sequence))
}

// ranking keeps objects in an order, whatever the order of their arrival, as the clock may be set back.
type ranking[T any] struct {
	all  []T
	rank func(T) rank
}

func (r *ranking[T]) find(object T) (at int, found bool) {
	return slices.BinarySearchFunc(r.all, r.rank(object), func(other T, wanted rank) int { return r.rank(other).compare(wanted) })
}

func (r *ranking[T]) add(object T) {
	at := len(r.all)
	if at > 0 && r.rank(object).compare(r.rank(r.all[at-1])) < 0 {
		at, _ = r.find(object)
	}
	r.all = slices.Insert(r.all, at, object)
}

func (r *ranking[T]) remove(object T) {
	if at, found := r.find(object); found {
		r.all = slices.Delete(r.all, at, at+1)
	}
}

// listed is an object of the API that lists show.
type listed interface {
	// standing tells the id, and where the object stands among those of its type by creation.
	standing() (id string, created rank)
}

// shelf keeps the objects of one type: those that exist in the order of their creation, and those that are gone.
type shelf[T listed] struct {
	ranking[T]

	byID    map[string]T // that exist
	gone    map[string]T // that do not any more
	deleted []string     // the ids of those, in the order in which they went
	render  func(T) any  // the document as the API shows it
	forget  func(T)      // what else there is to do when an object vanishes; may be nil
}

func newShelf[T listed](render func(T) any) shelf[T] {
	return shelf[T]{
		ranking: ranking[T]{rank: func(object T) rank {
			_, created := object.standing()
			return created
		}},
		byID: make(map[string]T), gone: make(map[string]T), render: render,
	}
}

func (s *shelf[T]) add(object T) {
	id, _ := object.standing()
	s.byID[id] = object
	s.ranking.add(object)
}

// retire makes an object one that is gone.
func (s *shelf[T]) retire(object T) {
	id, _ := object.standing()
	if _, exists := s.byID[id]; !exists {
		return
	}
	s.remove(object)
	delete(s.byID, id)
	s.gone[id] = object
	s.deleted = append(s.deleted, id)
}

// ever finds an object that exists or once did.
func (s *shelf[T]) ever(id string) (T, bool) {
	if found, exists := s.byID[id]; exists {
		return found, true
	}
	found, existed := s.gone[id]
	return found, existed
}

// named returns the object that the path of a request names by its id.
func (s *shelf[T]) named(r *request) (T, error) {
	var none T
	id, err := r.id()
	if err != nil {
		return none, err
	}
	found, exists := s.byID[id]
	if !exists {
		return none, errNotFound()
	}
	return found, nil
}

// get answers a read by id.
func (s *shelf[T]) get(r *request) (any, error) {
	found, err := s.named(r)
	if err != nil {
		return nil, err
	}
	return s.render(found), nil
}

// act changes the object with an id. What the change refuses, it has not begun.
func act[T listed](f *Fake, s *shelf[T], id string, change func(T) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()

	found, exists := s.byID[id]
	if !exists {
		return fmt.Errorf("id %q: %w", id, errNotFound())
	}
	return change(found)
}

// documents renders all that exist, in the order of their creation.
func (s *shelf[T]) documents() []json.RawMessage {
	rendered := make([]json.RawMessage, len(s.all))
	for i, object := range s.all {
		rendered[i] = encode(s.render(object))
	}
	return rendered
}

// The methods below make a shelf a kind, see [Fake.Objects].

func (s *shelf[T]) documentsByID() map[string]json.RawMessage {
	rendered := make(map[string]json.RawMessage, len(s.byID))
	for id, object := range s.byID {
		rendered[id] = encode(s.render(object))
	}
	return rendered
}

func (s *shelf[T]) document(id string) json.RawMessage {
	if found, exists := s.byID[id]; exists {
		return encode(s.render(found))
	}
	return nil
}

func (s *shelf[T]) deletedIDs() []string { return slices.Clone(s.deleted) }

func (s *shelf[T]) vanish(id string) bool {
	found, exists := s.byID[id]
	if exists {
		s.retire(found)
		if s.forget != nil {
			s.forget(found)
		}
	}
	return exists
}

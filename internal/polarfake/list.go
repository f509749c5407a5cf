package polarfake

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Polar's sizes of a page.
const (
	defaultLimit = 10
	maxLimit     = 100
)

// query reads the parameters of a list.
type query struct {
	fields
	values url.Values
}

func (r *request) query() query {
	return query{fields: fields{loc: []any{"query"}, problems: new([]Problem)}, values: r.URL.Query()}
}

// filter allows the values that were asked for, or all when none was.
type filter []string

func (f filter) allow(value string) bool { return len(f) == 0 || slices.Contains(f, value) }

// allowOptional is allow for something that may be missing, which no filter asks for.
func (f filter) allowOptional(value *string) bool {
	return len(f) == 0 || value != nil && slices.Contains(f, *value)
}

func (q query) text(name string) string { return q.values.Get(name) }

func (q query) texts(name string) filter { return q.values[name] }

func (q query) identifiers(name string) filter {
	var ids filter
	for i, value := range q.values[name] {
		if id, ok := q.checkIdentifier(q.at(name, i), value); ok {
			ids = append(ids, id)
		}
	}
	return ids
}

func (q query) choices(name string, allowed []string) filter {
	for i, value := range q.values[name] {
		if !slices.Contains(allowed, value) {
			q.failChoice(q.at(name, i), value, allowed)
		}
	}
	return q.values[name]
}

func (q query) boolean(name string) *bool {
	if !q.values.Has(name) {
		return nil
	}
	single := fields{values: map[string]any{name: q.values.Get(name)}, loc: q.loc, problems: q.problems}
	return single.optionalBoolean(name)
}

func (q query) moment(name string) *time.Time {
	text := q.values.Get(name)
	if text == "" {
		return nil
	}
	return q.checkMoment(q.at(name), text)
}

// metadata returns the values asked for by ?metadata[key]=value.
func (q query) metadata() map[string]filter {
	wanted := make(map[string]filter)
	for name, values := range q.values {
		if key, found := strings.CutPrefix(name, "metadata["); found && strings.HasSuffix(key, "]") {
			wanted[strings.TrimSuffix(key, "]")] = values
		}
	}
	return wanted
}

// matches reports whether m has one of the wanted values under each key.
func (m metadata) matches(wanted map[string]filter) bool {
	for key, values := range wanted {
		value, ok := m[key]
		if !ok || !values.allow(fmt.Sprint(value)) {
			return false
		}
	}
	return true
}

// paging is which part of a list to answer, and in which order.
type paging struct {
	page, limit  int
	sorting      []sortKey
	isUnfiltered bool
}

type sortKey struct {
	by         string
	descending bool
}

// paging reads the page and the order asked for: by the first of the keys, newest first, unless told otherwise. A list
// without keys has but one order; it takes no sorting, which is ignored as every unknown parameter is at Polar.
func (q query) paging(keys ...string) paging {
	p := paging{
		page: q.positive("page", 1), limit: min(q.positive("limit", defaultLimit), maxLimit), isUnfiltered: true,
	}
	for name := range q.values {
		p.isUnfiltered = p.isUnfiltered && (name == "page" || name == "limit" || name == "sorting")
	}
	if len(keys) == 0 {
		p.sorting = []sortKey{{descending: true}}
		return p
	}
	var allowed []string
	for _, name := range keys {
		allowed = append(allowed, name, "-"+name)
	}
	for _, name := range q.choices("sorting", allowed) {
		by, descending := strings.CutPrefix(name, "-")
		p.sorting = append(p.sorting, sortKey{by: by, descending: descending})
	}
	if len(p.sorting) == 0 {
		p.sorting = []sortKey{{by: keys[0], descending: true}}
	}
	return p
}

// filtered is for a list that never shows all there is.
func (p paging) filtered() paging {
	p.isUnfiltered = false
	return p
}

func (q query) positive(name string, fallback int) int {
	text := q.values.Get(name)
	if text == "" {
		return fallback
	}
	number, err := strconv.Atoi(text)
	switch {
	case err != nil:
		q.fail(q.at(name), "int_parsing", "Input should be a valid integer, unable to parse string as an integer", text, nil)
	case number <= 0:
		q.fail(q.at(name), "greater_than", "Input should be greater than 0", text, map[string]any{"gt": 0})
	default:
		return number
	}
	return fallback
}

// listing is a list before it is cut into pages.
type listing[T any] struct {
	all    []T                      // in an order that is kept, ascending
	order  string                   // what that order is by
	allow  func(T) bool             // the filters; nil allows all
	key    func(T, string) sortable // what to compare for every other order
	render func(T) any              // what is shown of an object
}

// listDocument is one page of a list.
type listDocument struct {
	Items      []any      `json:"items"`
	Pagination pagination `json:"pagination"`
}

type pagination struct {
	TotalCount int `json:"total_count"`
	MaxPage    int `json:"max_page"`
}

// page cuts a page out. Only what it shows is rendered, and in the order that is kept nothing is copied.
func (l listing[T]) page(p paging) listDocument {
	if p.isUnfiltered {
		l.allow = nil
	}
	objects, allow, descending := l.all, l.allow, p.sorting[0].descending
	if p.sorting[0].by != l.order {
		objects, allow, descending = l.sorted(p.sorting), nil, false
	}
	at := func(i int) T {
		if descending {
			return objects[len(objects)-1-i]
		}
		return objects[i]
	}
	const farthest = 1 << 40 // pages beyond it would overflow, and are as empty
	first := min(p.page-1, farthest) * p.limit
	document := listDocument{Items: []any{}}
	if allow == nil {
		for i := first; i < min(first+p.limit, len(objects)); i++ {
			document.Items = append(document.Items, l.render(at(i)))
		}
		document.Pagination.TotalCount = len(objects)
	} else {
		for i := range objects {
			object := at(i)
			if !allow(object) {
				continue
			}
			if n := document.Pagination.TotalCount; n >= first && n < first+p.limit {
				document.Items = append(document.Items, l.render(object))
			}
			document.Pagination.TotalCount++
		}
	}
	document.Pagination.MaxPage = (document.Pagination.TotalCount + p.limit - 1) / p.limit
	return document
}

func (l listing[T]) sorted(sorting []sortKey) []T {
	var objects []T
	for _, object := range l.all {
		if l.allow == nil || l.allow(object) {
			objects = append(objects, object)
		}
	}
	slices.SortStableFunc(objects, func(a, b T) int {
		for _, by := range sorting {
			order := l.key(a, by.by).compare(l.key(b, by.by))
			if by.descending {
				order = -order
			}
			if order != 0 {
				return order
			}
		}
		return 0
	})
	return objects
}

// sortable is a value to sort by. Null comes last, and first in descending order, as in Postgres.
type sortable struct {
	isNull bool
	text   string
	number int64
}

func (s sortable) compare(other sortable) int {
	switch {
	case s.isNull && other.isNull:
		return 0
	case s.isNull:
		return 1
	case other.isNull:
		return -1
	}
	return cmp.Or(cmp.Compare(s.number, other.number), cmp.Compare(s.text, other.text))
}

func byText(text string) sortable      { return sortable{text: text} }
func byNumber(number int64) sortable   { return sortable{number: number} }
func byTime(moment timestamp) sortable { return sortable{number: moment.UnixMicro()} }

func byOptionalText(text *string) sortable {
	if text == nil {
		return sortable{isNull: true}
	}
	return byText(*text)
}

func byOptionalTime(moment *timestamp) sortable {
	if moment == nil {
		return sortable{isNull: true}
	}
	return byTime(*moment)
}

// containsFold reports whether text contains part, whatever their case.
func containsFold(text, part string) bool {
	return part == "" || strings.Contains(strings.ToLower(text), strings.ToLower(part))
}

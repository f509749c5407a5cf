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
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", time.DateOnly} {
		if moment, err := time.Parse(layout, text); err == nil {
			return &moment
		}
	}
	q.fail(q.at(name), "datetime_from_date_parsing", "Input should be a valid datetime or date, invalid character", text, nil)
	return nil
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
	page, limit int
	sorting     []sortKey
}

type sortKey struct {
	by         string
	descending bool
}

func (q query) paging(sortable []string) paging {
	p := paging{page: q.positive("page", 1), limit: min(q.positive("limit", defaultLimit), maxLimit)}
	var allowed []string
	for _, name := range sortable {
		allowed = append(allowed, name, "-"+name)
	}
	for _, name := range q.choices("sorting", allowed) {
		by, descending := strings.CutPrefix(name, "-")
		p.sorting = append(p.sorting, sortKey{by: by, descending: descending})
	}
	if len(p.sorting) == 0 {
		p.sorting = []sortKey{{by: "created_at", descending: true}}
	}
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

// byCreation reports whether the order asked for is that of creation, in which every index is kept.
func (p paging) byCreation() bool { return p.sorting[0].by == "created_at" }

// sortBy orders objects given in order of their creation. key returns what to compare under a name: a string, an
// int64 or a [time.Time].
func sortBy[T any](objects []T, p paging, key func(object T, by string) any) {
	if p.byCreation() {
		return
	}
	slices.SortStableFunc(objects, func(a, b T) int {
		for _, sorting := range p.sorting {
			order := compare(key(a, sorting.by), key(b, sorting.by))
			if sorting.descending {
				order = -order
			}
			if order != 0 {
				return order
			}
		}
		return 0
	})
}

func compare(a, b any) int {
	switch a := a.(type) {
	case string:
		b, _ := b.(string)
		return cmp.Compare(a, b)
	case int64:
		b, _ := b.(int64)
		return cmp.Compare(a, b)
	case time.Time:
		b, _ := b.(time.Time)
		return a.Compare(b)
	}
	panic(fmt.Sprintf("polarfake: no order of %T", a))
}

// listDocument is one page of a list.
type listDocument[T any] struct {
	Items      []T `json:"items"`
	Pagination struct {
		TotalCount int `json:"total_count"`
		MaxPage    int `json:"max_page"`
	} `json:"pagination"`
}

// listResource cuts a page out of objects, which come from sortBy. It does not copy more than the page.
func listResource[T any](objects []T, p paging) listDocument[T] {
	document := listDocument[T]{Items: []T{}}
	document.Pagination.TotalCount = len(objects)
	document.Pagination.MaxPage = (len(objects) + p.limit - 1) / p.limit
	if p.page > document.Pagination.MaxPage {
		return document
	}
	first := (p.page - 1) * p.limit
	last := min(first+p.limit, len(objects))
	if p.byCreation() && p.sorting[0].descending {
		first, last = len(objects)-last, len(objects)-first
		document.Items = slices.Clone(objects[first:last])
		slices.Reverse(document.Items)
		return document
	}
	document.Items = objects[first:last]
	return document
}

// containsFold reports whether text contains part, whatever their case.
func containsFold(text, part string) bool {
	return part == "" || strings.Contains(strings.ToLower(text), strings.ToLower(part))
}

package console

import (
	"strconv"
	"time"
)

// plot is bars over the hours of a day, drawn as SVG.
type plot struct {
	Title  string
	Most   int64 // the highest bar
	Bars   []bar
	Legend []series
	Ticks  []tick
	Rows   []plotRow // the same as numbers
	Sum    int64
}

type series struct {
	Name   string
	Class  string // of its bars
	Values []int64
}

// bar is a rectangle in a picture that is plotWidth wide and plotHeight high.
type bar struct {
	X, Y, Width, Height string
	Class, Title        string
}

type tick struct{ X, Text string }

type plotRow struct {
	Hour   string
	Values []int64
}

const (
	plotWidth  = 480.0
	plotHeight = 120.0
	plotGap    = 2.0
)

// newPlot stacks the series, the first at the bottom. firstAt is when the first hour began.
func newPlot(title string, firstAt time.Time, all ...series) plot {
	p := plot{Title: title, Legend: all}
	hours := len(all[0].Values)
	for h := range hours {
		var sum int64
		for _, s := range all {
			sum += s.Values[h]
		}
		p.Most = max(p.Most, sum)
		p.Sum += sum
	}
	number := func(f float64) string { return strconv.FormatFloat(f, 'f', 1, 64) }
	step := plotWidth / float64(hours)
	for h := range hours {
		at := firstAt.Add(time.Duration(h) * time.Hour).UTC()
		row := plotRow{Hour: at.Format("2 Jan 15:04")}
		bottom := plotHeight
		for _, s := range all {
			v := s.Values[h]
			row.Values = append(row.Values, v)
			if v == 0 {
				continue
			}
			height := max(plotHeight*float64(v)/float64(p.Most), 1) // what is there is seen
			bottom -= height
			p.Bars = append(p.Bars, bar{
				X: number(float64(h)*step + plotGap/2), Y: number(bottom), Width: number(step - plotGap), Height: number(height), Class: s.Class,
				Title: at.Format("15:04") + " UTC: " + count(v) + " " + s.Name,
			})
		}
		p.Rows = append(p.Rows, row)
		if at.Hour()%6 == 0 {
			p.Ticks = append(p.Ticks, tick{number(float64(h)*step + step/2), at.Format("15:04")})
		}
	}
	return p
}

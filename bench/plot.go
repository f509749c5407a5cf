package main

import (
	"bytes"
	"fmt"
	"image/color"
	"path/filepath"
	"slices"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// colours of the subjects, told apart by the colour-blind too.
var colours = map[string]color.Color{
	"baseline": color.RGBA{R: 213, G: 94, B: 0, A: 255}, "verify": color.RGBA{R: 150, G: 150, B: 150, A: 255},
	"truenorth": color.RGBA{R: 0, G: 114, B: 178, A: 255},
}

// drawAll draws what was measured.
func drawAll(dir string, r *Results) error {
	if len(r.Receive) > 0 {
		if err := drawRates(filepath.Join(dir, "receive.svg"), r); err != nil {
			return err
		}
		if err := drawLatencies(filepath.Join(dir, "latency.svg"), r); err != nil {
			return err
		}
	}
	if len(r.Apply) > 0 {
		return drawApplied(filepath.Join(dir, "apply.svg"), r)
	}
	return nil
}

func newPlot(title, unit string) *plot.Plot {
	p := plot.New()
	p.BackgroundColor = color.White
	p.Title.Text, p.Title.Padding, p.Y.Label.Text = title, vg.Points(6), unit
	p.Legend.Top, p.Legend.Left = true, true
	for _, f := range []*font.Font{
		&p.Title.TextStyle.Font, &p.X.Label.TextStyle.Font, &p.Y.Label.TextStyle.Font,
		&p.X.Tick.Label.Font, &p.Y.Tick.Label.Font, &p.Legend.TextStyle.Font,
	} {
		f.Variant = "Sans"
	}
	return p
}

func save(p *plot.Plot, name string, width, height vg.Length) error {
	canvas := vgsvg.New(width, height)
	p.Draw(draw.New(canvas))
	var svg bytes.Buffer
	if _, err := canvas.WriteTo(&svg); err != nil {
		return fmt.Errorf("drawing %s: %w", name, err)
	}
	return writeFile(name, svg.Bytes())
}

// drawnSize is the size of body that plots are of: the usual one where it was measured.
func drawnSize(r *Results) int {
	if slices.ContainsFunc(r.Receive, func(s Received) bool { return s.BodyBytes == usualSize }) {
		return usualSize
	}
	return r.Receive[0].BodyBytes
}

// drawRates draws a group of bars for each number of connections.
func drawRates(name string, r *Results) error {
	size := drawnSize(r)
	p := newPlot(fmt.Sprintf("Deliveries of %d bytes acknowledged", size), "events / s")
	p.X.Label.Text, p.Y.Min = "keep-alive connections", 0
	const width = 24
	var labels []string
	for i, subject := range []string{"baseline", "truenorth", "verify"} {
		var values plotter.Values
		labels = labels[:0]
		for _, s := range r.Receive {
			if s.Subject == subject && s.BodyBytes == size {
				values, labels = append(values, s.Rate), append(labels, strconv.Itoa(s.Connections))
			}
		}
		if err := addBars(p, subject, values, width, float64(i-1)*width, colours[subject]); err != nil {
			return err
		}
	}
	nominal(p, labels)
	return save(p, name, 7*vg.Inch, 4*vg.Inch)
}

// nominal names what stands at 0, 1, 2 ... of the horizontal axis, with half a step around it, and leaves room for the legend.
func nominal(p *plot.Plot, labels []string) {
	p.NominalX(labels...)
	p.X.Min, p.X.Max, p.Y.Max = -0.5, float64(len(labels))-0.5, p.Y.Max*1.25
}

func addBars(p *plot.Plot, legend string, values plotter.Values, width, offset float64, fill color.Color) error {
	bars, err := plotter.NewBarChart(values, vg.Points(width))
	if err != nil {
		return fmt.Errorf("drawing bars: %w", err)
	}
	bars.LineStyle.Width, bars.Offset, bars.Color = 0, vg.Points(offset), fill
	p.Add(bars)
	if legend != "" {
		p.Legend.Add(legend, bars)
	}
	return nil
}

// drawLatencies draws percentiles at the most connections, on a logarithmic axis.
func drawLatencies(name string, r *Results) error {
	size, connections := drawnSize(r), 0
	for _, s := range r.Receive {
		connections = max(connections, s.Connections)
	}
	p := newPlot(fmt.Sprintf("Latency at %d connections, %d bytes", connections, size), "ms")
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	for _, subject := range []string{"baseline", "truenorth", "verify"} {
		s := r.received(subject, connections, size)
		if s == nil {
			continue
		}
		points := make(plotter.XYs, 0, 4)
		for i, y := range []float64{s.Latency.P50, s.Latency.P90, s.Latency.P99, s.Latency.P999} {
			points = append(points, plotter.XY{X: float64(i), Y: max(y, 0.001)})
		}
		line, dots, err := plotter.NewLinePoints(points)
		if err != nil {
			return fmt.Errorf("drawing latencies: %w", err)
		}
		line.Color, line.Width, dots.Color, dots.Shape = colours[subject], vg.Points(2), colours[subject], draw.CircleGlyph{}
		p.Add(line, dots)
		p.Legend.Add(subject, line, dots)
	}
	nominal(p, []string{"p50", "p90", "p99", "p99.9"})
	p.Y.Max *= 2 // on a logarithmic axis the legend needs more
	return save(p, name, 7*vg.Inch, 4*vg.Inch)
}

// drawApplied draws a bar for each subject.
func drawApplied(name string, r *Results) error {
	p := newPlot("Stored events applied", "events / s")
	p.Y.Min = 0
	labels := make([]string, len(r.Apply))
	for i, s := range r.Apply {
		labels[i] = s.Subject
		values := make(plotter.Values, len(r.Apply))
		values[i] = s.Rate
		fill := colours["truenorth"]
		if s.Subject == appliedPlainly {
			fill = colours["baseline"]
		}
		if err := addBars(p, "", values, 60, 0, fill); err != nil {
			return err
		}
	}
	nominal(p, labels)
	return save(p, name, 9*vg.Inch, 4*vg.Inch)
}

package main

import (
	"math"
	"slices"
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"
)

// Latency is how long things took, in milliseconds.
type Latency struct {
	Count int64   `json:"count"`
	P50   float64 `json:"p50_ms"`
	P90   float64 `json:"p90_ms"`
	P99   float64 `json:"p99_ms"`
	P999  float64 `json:"p999_ms"`
	Max   float64 `json:"max_ms"`
}

// summarize counts durations in a histogram of microseconds, to three digits.
func summarize(latencies []time.Duration) Latency {
	histogram := hdr.New(1, (10 * time.Minute).Microseconds(), 3)
	for _, d := range latencies {
		_ = histogram.RecordValue(max(d.Microseconds(), 1)) // nothing lasts longer than the histogram reaches
	}
	return latencyOf(histogram)
}

// latencyOf reads a histogram of microseconds.
func latencyOf(histogram *hdr.Histogram) Latency {
	at := func(percentile float64) float64 { return float64(histogram.ValueAtPercentile(percentile)) / 1000 }
	return Latency{
		Count: histogram.TotalCount(), P50: at(50), P90: at(90), P99: at(99), P999: at(99.9), Max: float64(histogram.Max()) / 1000,
	}
}

// medianOf is the median of one number of several samples.
func medianOf[T any](samples []T, number func(T) float64) float64 {
	if len(samples) == 0 {
		return 0
	}
	numbers := make([]float64, len(samples))
	for i, s := range samples {
		numbers[i] = number(s)
	}
	slices.Sort(numbers)
	middle := len(numbers) / 2
	if len(numbers)%2 == 0 {
		return (numbers[middle-1] + numbers[middle]) / 2
	}
	return numbers[middle]
}

// greatestOf is the greatest of one number of several samples.
func greatestOf[T any](samples []T, number func(T) float64) float64 {
	if len(samples) == 0 {
		return 0
	}
	greatest := math.Inf(-1)
	for _, s := range samples {
		greatest = max(greatest, number(s))
	}
	return greatest
}

// leastOf is the least of one number of several samples.
func leastOf[T any](samples []T, number func(T) float64) float64 {
	return -greatestOf(samples, func(s T) float64 { return -number(s) })
}

// medianLatency is the median of each percentile.
func medianLatency[T any](samples []T, of func(T) Latency) Latency {
	median := func(number func(Latency) float64) float64 {
		return medianOf(samples, func(s T) float64 { return number(of(s)) })
	}
	var total int64
	for _, s := range samples {
		total += of(s).Count
	}
	return Latency{
		Count: total,
		P50:   median(func(l Latency) float64 { return l.P50 }), P90: median(func(l Latency) float64 { return l.P90 }),
		P99: median(func(l Latency) float64 { return l.P99 }), P999: median(func(l Latency) float64 { return l.P999 }),
		Max: greatestOf(samples, func(s T) float64 { return of(s).Max }),
	}
}

package polar

import (
	"encoding/base64"
	"go/ast"
	"go/parser"
	"go/token"
	"math"
	"math/rand/v2"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestSignaturesAndPasswordsAreComparedInConstantTime looks at the code that compares what is secret: a comparison that ends
// at the first difference tells an attacker, answer by answer, how much of a forgery is right.
func TestSignaturesAndPasswordsAreComparedInConstantTime(t *testing.T) {
	t.Parallel()
	library, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/standard-webhooks/standard-webhooks/libraries").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, compared := range []struct {
		file, function, by string
		not                []string // names that may not stand on either side of == or !=
	}{
		{filepath.Join(strings.TrimSpace(string(library)), "go", "webhook.go"), "verify", "hmac.Equal", []string{"signature", "expectedSignature"}},
		{"../console/access.go", "admit", "subtle.ConstantTimeCompare", []string{"password", "hash"}},
		{"../console/access.go", "isValid", "hmac.Equal", []string{"signature"}},
	} {
		file, err := parser.ParseFile(token.NewFileSet(), compared.file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, d := range file.Decls {
			function, ok := d.(*ast.FuncDecl)
			if !ok || function.Name.Name != compared.function {
				continue
			}
			ast.Inspect(function, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.CallExpr:
					found = found || source(n.Fun) == compared.by
					if source(n.Fun) == "bytes.Equal" || source(n.Fun) == "strings.EqualFold" {
						t.Errorf("%s of %s uses %s", compared.function, compared.file, source(n.Fun))
					}
				case *ast.BinaryExpr:
					if n.Op == token.EQL && (slices.Contains(compared.not, source(n.X)) || slices.Contains(compared.not, source(n.Y))) {
						t.Errorf("%s of %s compares %s with ==", compared.function, compared.file, source(n.X))
					}
				}
				return true
			})
		}
		if !found {
			t.Errorf("%s of %s does not use %s", compared.function, compared.file, compared.by)
		}
	}
}

// source is a name, or a name of a package's.
func source(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return source(e.X) + "." + e.Sel.Name
	}
	return ""
}

// BenchmarkTimeOfARefusal measures what an attacker would: whether a signature that is wrong from its first byte on is refused
// in another time than one that is wrong in its last byte alone. It takes both in turns, in a random order, leaves out the
// slowest tenth, which the machine's other work made slow, and reports Welch's t: over 4.5 either way, the two differ.
// For comparison, "bytes in order" does the same to a comparison that stops at the first difference.
func BenchmarkTimeOfARefusal(b *testing.B) {
	valid := testSign(b, standardSecret, DerivationStandard)
	version, text, _ := strings.Cut(valid.Get("Webhook-Signature"), ",")
	right, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		b.Fatal(err)
	}
	wrong := func(at int) (h http.Header, signature []byte) {
		signature = slices.Clone(right)
		signature[at] ^= 0x55
		h = valid.Clone()
		h.Set("Webhook-Signature", version+","+base64.StdEncoding.EncodeToString(signature))
		return h, signature
	}
	firstHeader, first := wrong(0)
	lastHeader, last := wrong(len(right) - 1)
	verifier := testVerifier(b, standardSecret)
	refuse := func(h http.Header) {
		if verifier.Verify(testBody, h) == nil {
			b.Fatal("a forgery is accepted")
		}
	}
	inOrder := func(signature []byte) {
		for range 100 { // one comparison is shorter than the clock's step
			if slices.Equal(signature, right) {
				b.Fatal("a forgery is accepted")
			}
		}
	}
	b.Run("verify", func(b *testing.B) { welch(b, func() { refuse(firstHeader) }, func() { refuse(lastHeader) }) })
	b.Run("same", func(b *testing.B) { welch(b, func() { refuse(firstHeader) }, func() { refuse(firstHeader) }) })
	b.Run("bytes in order", func(b *testing.B) { welch(b, func() { inOrder(first) }, func() { inOrder(last) }) })
}

// welch times two deeds in turns, and reports how sure it is that they differ.
func welch(b *testing.B, x, y func()) {
	b.Helper()
	random := rand.New(rand.NewPCG(1, 1))
	times := [2][]float64{}
	deeds := [2]func(){x, y}
	for b.Loop() {
		i := random.IntN(2)
		began := time.Now()
		deeds[i]()
		times[i] = append(times[i], float64(time.Since(began)))
	}
	var mean, variance, n [2]float64
	for i := range times {
		slices.Sort(times[i])
		kept := times[i][:len(times[i])*9/10]
		n[i] = float64(len(kept))
		for _, t := range kept {
			mean[i] += t / n[i]
		}
		for _, t := range kept {
			variance[i] += (t - mean[i]) * (t - mean[i]) / (n[i] - 1)
		}
	}
	if n[0] < 2 || n[1] < 2 {
		return
	}
	b.ReportMetric((mean[0]-mean[1])/math.Sqrt(variance[0]/n[0]+variance[1]/n[1]), "Welch-t")
	b.ReportMetric(mean[0]-mean[1], "ns-apart")
	b.ReportMetric(n[0]+n[1], "measured")
}

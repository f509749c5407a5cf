package doccheck_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/truenorth-dev/truenorth/internal/machinetest"
	"github.com/truenorth-dev/truenorth/internal/polar"
	"github.com/truenorth-dev/truenorth/internal/polarfake"
	"github.com/truenorth-dev/truenorth/internal/store/storetest"
	"github.com/truenorth-dev/truenorth/internal/waittest"
)

func mustRun(t *testing.T, program string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// change replaces texts that have to be there, so that an example's change is noticed here.
func change(t *testing.T, text string, pairs ...string) string {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			t.Fatalf("it has no %q to replace:\n%s", pairs[i], text)
		}
		text = strings.ReplaceAll(text, pairs[i], pairs[i+1])
	}
	return text
}

func TestSystemdAcceptsTheUnitsAndFindsThemConfined(t *testing.T) {
	t.Parallel()
	analyze := machinetest.Program(t, "systemd", "systemd-analyze")
	read := variablesRead(t)
	production := readFile(t, "docs/production.md")
	dir := t.TempDir()
	for unit, program := range unitPrograms {
		text := readFile(t, "deploy/systemd/"+unit+".service")
		for _, m := range regexp.MustCompile(`(?m)^#?Environment=([A-Z_]+)=`).FindAllStringSubmatch(text, -1) {
			if !read[m[1]] {
				t.Errorf("%s sets %s, which nothing reads", unit, m[1])
			}
		}
		for _, m := range regexp.MustCompile(`(?m)^#?LoadCredential=\w+:(\S+)$`).FindAllStringSubmatch(text, -1) {
			if !strings.Contains(production, filepath.Base(m[1])) {
				t.Errorf("%s needs the file %s, of which docs/production.md says nothing", unit, m[1])
			}
		}
		file := filepath.Join(dir, unit+".service")
		text = change(t, text, "ExecStart=/usr/local/bin/"+strings.Join(program, " ")+"\n",
			"ExecStart="+filepath.Join(builtPrograms(t), program[0])+" "+strings.Join(program[1:], " ")+"\n")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if out := mustRun(t, analyze, "verify", "--man=no", file); out != "" {
			t.Errorf("%s: %s", unit, out)
		}
		// Of 100; what is left is that it has a network.
		out := mustRun(t, analyze, "security", "--offline=true", "--no-pager", "--threshold=12", file)
		t.Log(regexp.MustCompile(`Overall.*`).FindString(out))
	}
}

// certificate makes one for 127.0.0.1, and a client that trusts it alone.
func certificate(t *testing.T) (certFile, keyFile string, client *http.Client) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "shop.example"}, DNSNames: []string{"shop.example"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "fullchain.pem"), filepath.Join(dir, "privkey.pem")
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := errors.Join(os.WriteFile(certFile, certPEM, 0o600),
		os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600)); err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "shop.example", MinVersion: tls.VersionTLS12}}
	t.Cleanup(transport.CloseIdleConnections)
	return certFile, keyFile, &http.Client{Transport: transport, Timeout: 15 * time.Second}
}

// deliver posts an event to a proxy as Polar does, and gives the status of the answer.
func deliver(t *testing.T, client *http.Client, address, webhookID, body string) int {
	t.Helper()
	headers, err := polar.Sign(pageSecret, webhookID, time.Now(), []byte(body), polar.DerivationAuto)
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header = headers
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	return response.StatusCode
}

// proves sends through a proxy what Polar and others may, with ingest there and away.
func (w *world) proves(client *http.Client, base string) {
	w.t.Helper()
	t := w.t
	body := `{"type": "customer.updated", "timestamp": "2026-11-25T09:00:00Z", "data": {"id": "` + uuid.NewString() + `", "name": "Ada \u00e9"}}`
	id := uuid.NewString()
	route := base + "/webhooks/polar"
	if status := deliver(t, client, route, id, body); status != http.StatusAccepted {
		t.Errorf("a delivery is answered %d, want 202", status)
	}
	if status := deliver(t, client, route, uuid.NewString(), `{"pad": "`+strings.Repeat("x", 1<<20)+`"}`); status != http.StatusRequestEntityTooLarge {
		t.Errorf("a body of over 1 MiB is answered %d, want ingest's 413", status)
	}
	for _, path := range []string{"/", "/readyz", "/metrics", "/webhooks/polar/more", "/webhooks"} {
		if status := deliver(t, client, base+path, uuid.NewString(), body); status != http.StatusNotFound {
			t.Errorf("%s is answered %d, want 404", path, status)
		}
	}
	var stored string
	if err := storetest.Open(t, w.databaseURL).Pool().QueryRow(t.Context(), "select body from polar.event where webhook_id = $1", id).Scan(&stored); err != nil || stored != body {
		t.Errorf("stored is %q (%v), want %q", stored, err, body)
	}
	if err := w.services.tryStop("truenorth-ingest"); err != nil {
		t.Fatal(err)
	}
	if status := deliver(t, client, route, uuid.NewString(), body); status < 500 {
		t.Errorf("without ingest a delivery is answered %d, want a 5xx, for which Polar tries again", status)
	}
	w.services.start("truenorth-ingest")
	waittest.Eventually(t, func() error {
		if status := deliver(t, client, route, uuid.NewString(), body); status != http.StatusAccepted {
			return fmt.Errorf("with ingest back a delivery is answered %d", status)
		}
		return nil
	})
}

// run starts a program of deploy/ that stays until the test ends.
func (w *world) run(ready func() bool, program string, args ...string) {
	w.t.Helper()
	command := exec.CommandContext(context.WithoutCancel(w.t.Context()), program, args...)
	command.Env = []string{"HOME=" + filepath.Join(w.home, "home"), "PATH=" + os.Getenv("PATH")}
	p, err := startProcess(command, filepath.Join(w.home, filepath.Base(program)+".log"))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = p.stop() })
	if err := p.until(ready); err != nil {
		w.t.Fatal(err)
	}
}

func TestNginxLetsPolarInAndNobodyElse(t *testing.T) {
	t.Parallel()
	w, client, base := startNginx(t)
	w.proves(client, base)
}

// startNginx starts nginx as deploy/ has it, before two ingests, of which the first is away all the time.
func startNginx(t *testing.T) (w *world, client *http.Client, base string) {
	t.Helper()
	nginx := machinetest.Program(t, "nginx", "nginx")
	const file = "deploy/nginx/truenorth.conf"
	w = newWorld(t, file)
	certFile, keyFile, client := certificate(t)
	address := machinetest.Address(t)
	site := change(t, readFile(t, file), "listen 443 ssl", "listen "+address+" ssl",
		"/etc/ssl/shop.example/fullchain.pem", certFile, "/etc/ssl/shop.example/privkey.pem", keyFile,
		// The first of two ingests is away all the time.
		"server 127.0.0.1:8080", "server "+machinetest.Address(t)+";\n    server "+w.ports["127.0.0.1:8080"])
	w.write("site.conf", site)
	w.write("nginx.conf", fmt.Sprintf(`
		daemon off; master_process off; pid %[1]s/nginx.pid; error_log stderr;
		events {}
		http {
			access_log off; client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
			include %[1]s/site.conf;
		}`, w.home))
	args := []string{"-e", "stderr", "-p", w.home, "-c", filepath.Join(w.home, "nginx.conf")}
	mustRun(t, nginx, append(args, "-t", "-q")...)
	w.run(func() bool { return answers(client, "https://"+address) }, nginx, args...)
	return w, client, "https://" + address
}

func answers(client *http.Client, address string) bool {
	response, err := client.Get(address)
	if err != nil {
		return false
	}
	_ = response.Body.Close()
	return true
}

func TestCaddyLetsPolarInAndNobodyElse(t *testing.T) {
	t.Parallel()
	w, client, base := startCaddy(t)
	w.proves(client, base)
}

// startCaddy starts Caddy as deploy/ has it, but for its certificate.
func startCaddy(t *testing.T) (w *world, client *http.Client, base string) {
	t.Helper()
	caddy := machinetest.Program(t, "caddy", "caddy")
	const file = "deploy/caddy/Caddyfile"
	w = newWorld(t, file)
	address := machinetest.Address(t)
	// Without TLS: the certificate comes from an authority that the test has not.
	w.write("Caddyfile", "{\n\tadmin off\n}\n"+change(t, readFile(t, file), "\nshop.example {", "\nhttp://"+address+" {",
		"reverse_proxy 127.0.0.1:8080 {", "reverse_proxy "+w.ports["127.0.0.1:8080"]+" {"))
	client = &http.Client{Timeout: 15 * time.Second}
	w.run(func() bool { return answers(client, "http://"+address) }, caddy, "run", "--adapter", "caddyfile", "--config", filepath.Join(w.home, "Caddyfile"))
	return w, client, "http://" + address
}

// TestAllProgramsWorkThroughPgBouncer has ingest and the product in transaction mode, and the worker in session mode.
func TestAllProgramsWorkThroughPgBouncer(t *testing.T) {
	t.Parallel()
	pgbouncer := machinetest.Program(t, "pgbouncer", "pgbouncer")
	const file = "deploy/pgbouncer/pgbouncer.ini"
	w := newWorld(t, file)
	server, err := url.Parse(w.databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	password, _ := server.User.Password()
	address := machinetest.Address(t)
	_, port, _ := strings.Cut(address, ":")
	w.write("pgbouncer.ini", change(t, readFile(t, file),
		"host=127.0.0.1 port=5432 dbname=shop", "host="+server.Hostname()+" port="+server.Port()+" dbname="+strings.TrimPrefix(server.Path, "/"),
		"listen_port = 6432", "listen_port = "+port, "/etc/pgbouncer/userlist.txt", filepath.Join(w.home, "userlist.txt")))
	w.write("userlist.txt", fmt.Sprintf("%q %q\n", server.User.Username(), password))
	args := []string{filepath.Join(w.home, "pgbouncer.ini")}
	if os.Geteuid() == 0 { // which it refuses to be
		args = append([]string{"-u", "nobody"}, args...)
	}
	through := func(database string, parameters ...string) string {
		u := *server
		u.Host, u.Path = address, "/"+database
		u.RawQuery = strings.Join(append(parameters, "sslmode=disable"), "&")
		return u.String()
	}
	w.run(func() bool { return storetest.Open(t, through("shop_session")).Ping(t.Context()) == nil }, pgbouncer, args...)

	transactions := through("shop", "default_query_exec_mode=cache_describe")
	for unit, databaseURL := range map[string]string{"truenorth-ingest": transactions, "truenorth-worker": through("shop_session")} {
		if err := w.services.tryStop(unit); err != nil {
			t.Fatal(err)
		}
		w.write("etc/truenorth/"+strings.TrimPrefix(unit, "truenorth-")+"_database_url", databaseURL)
		w.services.start(unit)
	}
	ask := exec.CommandContext(t.Context(), filepath.Join(builtPrograms(t), "truenorth"), "checkout", "create",
		"--product", polarfake.OneTimeProductID, "--external-customer-id", "usr_ada", "--wait", "20s")
	ask.Env = []string{"DATABASE_URL=" + transactions}
	hosted, err := ask.Output()
	if err != nil {
		t.Fatalf("asking for a checkout in transaction mode: %v", err)
	}
	response, err := http.PostForm(strings.TrimSpace(string(hosted)), url.Values{"action": {"pay"}, "email": {"ada@example.com"}})
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	direct := storetest.Open(t, w.databaseURL)
	waittest.Eventually(t, func() error {
		var linked, waiting int
		err := direct.Pool().QueryRow(t.Context(), `select (select count(*) from polar.customer_link where local_user_id = 'usr_ada' and basis = 'checkout'),
			(select count(*) from polar.event where state <> 'applied')`).Scan(&linked, &waiting)
		if err == nil && (linked != 1 || waiting != 0) {
			err = fmt.Errorf("%d links, %d events not applied", linked, waiting)
		}
		return err
	})

	// Deliveries at once share server connections, which is where a prepared statement would be missed.
	results := make(chan int, 200)
	slots := make(chan struct{}, 20)
	for range cap(results) {
		go func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			body := `{"type": "customer.updated", "timestamp": "2026-11-25T09:00:00Z", "data": {"id": "` + uuid.NewString() + `"}}`
			headers, err := polar.Sign(pageSecret, uuid.NewString(), time.Now(), []byte(body), polar.DerivationAuto)
			status := 0
			if request, newErr := http.NewRequest(http.MethodPost, "http://"+w.ports["127.0.0.1:8080"]+"/webhooks/polar", bytes.NewReader([]byte(body))); err == nil && newErr == nil {
				request.Header = headers
				if response, err := http.DefaultClient.Do(request); err == nil {
					status = response.StatusCode
					_ = response.Body.Close()
				}
			}
			results <- status
		}()
	}
	for range cap(results) {
		if status := <-results; status != http.StatusAccepted {
			t.Fatalf("a delivery is answered %d, want 202", status)
		}
	}
}

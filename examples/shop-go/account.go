package main

import (
	"context"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// person is whoever a request is from: a user, or a visitor who may become one.
type person struct {
	id    string // a user's; or the one that a visitor gets by signing up
	email string // empty: not signed in
}

func (p person) isSignedIn() bool { return p.email != "" }

// A browser carries 256 random bits. Where they are those of a session, they stand for a user. Otherwise they are a visitor's,
// whose future user id is made of them: a visitor buys under that id before there is a user, and nothing needs to be
// stored of visitors. From the id nobody gets back to the bits.
type token [32]byte

func newToken() (t token) {
	_, _ = rand.Read(t[:]) // never fails
	return t
}

// hash is what the table of sessions knows of a token.
func (t token) hash() []byte {
	sum := sha256.Sum256(t[:])
	return sum[:]
}

func (t token) visitorID() string {
	sum := sha256.Sum256(append([]byte("visitor:"), t[:]...))
	return "usr_" + hex.EncodeToString(sum[:16])
}

const sessionLifetime = 30 * 24 * time.Hour

// cookieName has the prefix by which browsers refuse a cookie that another host, or an unencrypted page, tries to plant.
func (s *shop) cookieName() string {
	if s.base.Scheme == "https" {
		return "__Host-shop"
	}
	return "shop"
}

func (s *shop) setToken(w http.ResponseWriter, t token) {
	http.SetCookie(w, &http.Cookie{ //nolint:gosec // not Secure where the shop itself is not: on this machine
		Name: s.cookieName(), Value: base64.RawURLEncoding.EncodeToString(t[:]), Path: "/", MaxAge: int(sessionLifetime.Seconds()),
		HttpOnly: true, Secure: s.base.Scheme == "https",
		SameSite: http.SameSiteLaxMode, // Strict would not be sent by who comes back from Polar's page
	})
}

// identify tells who a request is from. Who brings no token, or one that is used up, is a new visitor and given one.
func (s *shop) identify(w http.ResponseWriter, r *http.Request) (person, error) {
	if cookie, err := r.Cookie(s.cookieName()); err == nil {
		var t token
		if raw, err := base64.RawURLEncoding.DecodeString(cookie.Value); err == nil && len(raw) == len(t) {
			copy(t[:], raw)
			who, err := s.personOf(r.Context(), t)
			if err != nil || who.id != "" {
				return who, err
			}
		}
	}
	t := newToken()
	s.setToken(w, t)
	return person{id: t.visitorID()}, nil
}

// personOf returns nobody for the token of a visitor who has signed up since: it does not stand for the user.
func (s *shop) personOf(ctx context.Context, t token) (person, error) {
	visitor := person{id: t.visitorID()}
	var user person
	err := s.pool.QueryRow(ctx, `
		select u.id, u.email from sessions s join users u on u.id = s.user_id where s.token_hash = $1 and s.expires_at > now()
		union all
		select '', '' from users where id = $2`, t.hash(), visitor.id).Scan(&user.id, &user.email)
	if errors.Is(err, pgx.ErrNoRows) {
		return visitor, nil
	}
	if err != nil {
		return person{}, fmt.Errorf("reading the session: %w", err)
	}
	return user, nil
}

// errEmailTaken is about an address that has an account.
var errEmailTaken = errors.New("the e-mail address has an account already")

// signUp makes a visitor a user, signed in with the token. Who has paid before has access from the commit on.
// Errors: errEmailTaken.
func (s *shop) signUp(ctx context.Context, visitor person, email, password string, t token) error {
	hashed, err := hashPassword(password)
	if err != nil {
		return err
	}
	return inTransaction(ctx, s.pool, "signing up", func(tx pgx.Tx) error {
		written, err := tx.Exec(ctx, "insert into users (id, email, password_hash) values ($1, $2, $3) on conflict do nothing",
			visitor.id, email, hashed)
		if err != nil {
			return fmt.Errorf("writing the user: %w", err)
		}
		if written.RowsAffected() == 0 {
			return errEmailTaken
		}
		if err := insertSession(ctx, tx, visitor.id, t); err != nil {
			return err
		}
		// A table of users that truenorth does not see would be found out by the first who pays and gets nothing.
		var seen bool
		if err := tx.QueryRow(ctx, "select exists (select from polar.local_user where id = $1)", visitor.id).Scan(&seen); err != nil {
			return fmt.Errorf("looking for the user in polar.local_user: %w", err)
		}
		if !seen {
			return errors.New("polar.local_user does not show the new user: run truenorth users map --table public.users --created-at created_at")
		}
		// Last, as the worker waits for this transaction's end with what it hears of the customer meanwhile.
		_, err = s.client.LinkUserTx(ctx, tx, visitor.id)
		return err
	})
}

// errWrongPassword is about an address without an account, too: nobody is told which.
var errWrongPassword = errors.New("the e-mail address or the password is wrong")

// signIn opens a session of the token's for the user. Errors: errWrongPassword.
func (s *shop) signIn(ctx context.Context, email, password string, t token) (userID string, err error) {
	hashed := unusableHash
	err = s.pool.QueryRow(ctx, "select id, password_hash from users where lower(email) = lower($1)", email).Scan(&userID, &hashed)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return "", fmt.Errorf("reading the user: %w", err)
	}
	// Compared also where there is no user, so that the time to the answer does not tell.
	if !isPassword(hashed, password) || userID == "" {
		return "", errWrongPassword
	}
	return userID, insertSession(ctx, s.pool, userID, t)
}

func insertSession(ctx context.Context, db interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}, userID string, t token,
) error {
	_, err := db.Exec(ctx, "insert into sessions (token_hash, user_id, expires_at) values ($1, $2, now() + $3::interval)",
		t.hash(), userID, sessionLifetime)
	if err != nil {
		return fmt.Errorf("opening a session: %w", err)
	}
	return nil
}

// signOut ends the session of a request, here and not only in the browser.
func (s *shop) signOut(r *http.Request) error {
	cookie, err := r.Cookie(s.cookieName())
	if err != nil {
		return nil //nolint:nilerr // there is no cookie, so there is nothing to end
	}
	raw, err := base64.RawURLEncoding.DecodeString(cookie.Value)
	if err != nil {
		return nil //nolint:nilerr // it is no token of ours
	}
	hash := sha256.Sum256(raw)
	if _, err := s.pool.Exec(r.Context(), "delete from sessions where token_hash = $1", hash[:]); err != nil {
		return fmt.Errorf("ending a session: %w", err)
	}
	return nil
}

// removeOldSessions removes, until ctx ends, what has expired. Nobody is let in by it meanwhile.
func (s *shop) removeOldSessions(ctx context.Context) {
	ticker := time.NewTicker(time.Hour)
	defer ticker.Stop()
	for {
		if _, err := s.pool.Exec(ctx, "delete from sessions where expires_at <= now()"); err != nil && ctx.Err() == nil {
			s.logger.WarnContext(ctx, "removing old sessions failed, and is tried again in an hour", slog.String("error", err.Error()))
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// Passwords are kept as pbkdf2-sha256$ROUNDS$SALT$KEY, so that the rounds may grow while old hashes stay good.
const (
	hashName   = "pbkdf2-sha256"
	hashRounds = 600_000 // what OWASP asks for
	hashLength = 32
)

// unusableHash is one that no password has, and that takes as long to compare.
var unusableHash = fmt.Sprintf("%s$%d$$", hashName, hashRounds)

func hashPassword(password string) (string, error) {
	var salt [16]byte
	_, _ = rand.Read(salt[:]) // never fails
	key, err := pbkdf2.Key(sha256.New, password, salt[:], hashRounds, hashLength)
	if err != nil {
		return "", fmt.Errorf("hashing the password: %w", err)
	}
	encode := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("%s$%d$%s$%s", hashName, hashRounds, encode(salt[:]), encode(key)), nil
}

func isPassword(hashed, password string) bool {
	parts := strings.Split(hashed, "$")
	if len(parts) != 4 || parts[0] != hashName {
		return false
	}
	rounds, err := strconv.Atoi(parts[1])
	if err != nil {
		return false
	}
	salt, err := base64.RawStdEncoding.DecodeString(parts[2])
	if err != nil {
		return false
	}
	want, err := base64.RawStdEncoding.DecodeString(parts[3])
	if err != nil {
		return false
	}
	got, err := pbkdf2.Key(sha256.New, password, salt, rounds, hashLength)
	return err == nil && subtle.ConstantTimeCompare(got, want) == 1
}

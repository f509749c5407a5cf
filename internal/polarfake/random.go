package polarfake

import (
	cryptorand "crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"math/rand/v2"

	"github.com/google/uuid"
)

// randomness is where ids, secrets and jitter come from. What callers make and what the sender makes are drawn apart:
// with a seed, the ids of objects depend on the calls alone, and not on how the deliveries went meanwhile.
type randomness struct {
	objects *rand.Rand
	sending *rand.Rand
}

func newRandomness(seed uint64) randomness {
	if seed != 0 {
		return randomness{
			objects: rand.New(rand.NewPCG(seed, 1)), //nolint:gosec // repeatable because that was asked for
			sending: rand.New(rand.NewPCG(seed, 2)), //nolint:gosec // repeatable because that was asked for
		}
	}
	unpredictable := func() *rand.Rand {
		var key [32]byte
		_, _ = cryptorand.Read(key[:])        // never fails
		return rand.New(rand.NewChaCha8(key)) //nolint:gosec // ChaCha8 with a key from the system
	}
	return randomness{objects: unpredictable(), sending: unpredictable()}
}

// randomBytes returns n bytes.
func randomBytes(source *rand.Rand, n int) []byte {
	drawn := make([]byte, 0, n+7)
	for len(drawn) < n {
		drawn = binary.BigEndian.AppendUint64(drawn, source.Uint64())
	}
	return drawn[:n]
}

// randomID returns a UUID of version 4.
func randomID(source *rand.Rand) string {
	id := uuid.UUID(randomBytes(source, len(uuid.UUID{})))
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return id.String()
}

// newID names a new object. The caller holds f.mu.
func (f *Fake) newID() string { return randomID(f.random.objects) }

// newSecret is a text that nobody guesses, for what is known by its secret alone. The caller holds f.mu.
func (f *Fake) newSecret() string {
	const length = 35 // gives 56 letters and digits, without padding
	return base32.StdEncoding.EncodeToString(randomBytes(f.random.objects, length))
}

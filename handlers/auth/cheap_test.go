package auth

import (
	"fmt"
	"net/netip"
	"strconv"

	"golang.org/x/crypto/argon2"
)

// cheapHash is the PHC string of a password at the least cost, so that tests are fast.
func cheapHash(password string) string {
	sum := argon2.IDKey([]byte(password), []byte("saltsaltsalt"), 1, 8, 1, 32)
	return fmt.Sprintf("$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHRzYWx0$%s", phcText.EncodeToString(sum))
}

func itoa(n int) string { return strconv.Itoa(n) }

func mustAddr(text string) netip.Addr { return netip.MustParseAddr(text) }

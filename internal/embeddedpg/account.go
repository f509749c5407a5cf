package embeddedpg

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// account is the user that runs PostgreSQL instead of root. A nil account is the present user.
type account struct {
	name     string
	uid, gid uint32
}

// serverAccount chooses who runs PostgreSQL: whoever runs this process, and for root postgres or else nobody.
func serverAccount() (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil //nolint:nilnil // nil is documented to be the present user
	}

	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}

		uid, uidErr := strconv.ParseUint(u.Uid, 10, 32)
		gid, gidErr := strconv.ParseUint(u.Gid, 10, 32)

		if err := errors.Join(uidErr, gidErr); err != nil {
			return nil, fmt.Errorf("reading the user %s: %w", name, err)
		}

		return &account{name: name, uid: uint32(uid), gid: uint32(gid)}, nil
	}

	return nil, errors.New("PostgreSQL refuses to run as root, and there is no user postgres or nobody to run it as: " +
		"create one, or run this as another user")
}

// suffix names the account in an error text, "" for the present user.
func (a *account) suffix() string {
	if a == nil {
		return ""
	}

	return " as user " + a.name
}

// uidOrOwn is the user id that PostgreSQL's files belong to.
func (a *account) uidOrOwn() int {
	if a == nil {
		return os.Geteuid()
	}

	return int(a.uid)
}

// own gives everything under dir to the account.
func (a *account) own(dir string) error {
	if a == nil {
		return nil
	}

	// A root does not let links lead out of the folder, whatever its user does to it meanwhile.
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("giving the data folder to user %s: %w", a.name, err)
	}
	defer root.Close()

	err = fs.WalkDir(root.FS(), ".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}

		return root.Lchown(path, int(a.uid), int(a.gid))
	})
	if err != nil {
		return fmt.Errorf("giving %s to user %s: %w", dir, a.name, err)
	}

	return nil
}

// reaches reports whether the account may pass through dir and all folders above it. What does not exist yet counts
// as passable, since this package will make it so.
func (a *account) reaches(dir string) bool {
	if a == nil {
		return true
	}

	for {
		if info, err := os.Stat(dir); err == nil && !a.mayEnter(info) {
			return false
		}

		parent := filepath.Dir(dir)
		if parent == dir {
			return true
		}

		dir = parent
	}
}

func (a *account) mayEnter(info fs.FileInfo) bool {
	const ownerExec, groupExec, otherExec = 0o100, 0o010, 0o001

	bit := fs.FileMode(otherExec)

	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		switch {
		case st.Uid == a.uid:
			bit = ownerExec
		case st.Gid == a.gid:
			bit = groupExec
		}
	}

	return info.Mode()&bit != 0
}

// command prepares a program of PostgreSQL. It runs as the account, in a process group of its own, so that a Ctrl-C
// meant for this program does not take the database away while it finishes. Nothing of the environment is passed on:
// PGDATA, PGOPTIONS and their like would change what the program does. Messages are in English, as some are read.
func command(ctx context.Context, a *account, dir, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + filepath.Dir(name) + ":/usr/local/bin:/usr/bin:/bin", "HOME=" + dir, "LC_ALL=C"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}

	if a != nil {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: a.uid, Gid: a.gid}
	}

	return cmd
}

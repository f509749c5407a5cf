package embeddedpg

import "syscall"

// tmpfs is the kernel's number of that file system.
const tmpfs = 0x01021994

// memoryRoot is a folder in memory with room for the databases of tests, "" where there is none.
func memoryRoot() string {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(memoryDir, &fs); err != nil || fs.Type != tmpfs || fs.Bavail*uint64(fs.Bsize) < memoryRoom { //nolint:gosec // a block has a size
		return ""
	}

	return memoryDir
}

package embeddedpg

import "syscall"

// dieWithParent has the kernel send the process PostgreSQL's signal for a fast shutdown when this process dies.
func dieWithParent(attr *syscall.SysProcAttr) {
	attr.Pdeathsig = syscall.SIGINT
}

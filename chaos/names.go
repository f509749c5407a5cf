package main

import (
	"fmt"
	"net/netip"
	"slices"
)

// The hosts.
const (
	nameApp   = "app" // the product's own, with its buyers and the observers: no fault meets it
	namePolar = "polar"
	nameEdge  = "edge" // the load balancer in front of ingest, where deliveries are observed
	nameEtcd  = "etcd"
)

var (
	ingestNames   = []string{"ingest1", "ingest2"}
	workerNames   = []string{"worker1", "worker2", "worker3"}
	databaseNames = []string{"db1", "db2"}
	programNames  = slices.Concat(ingestNames, workerNames)
)

// Ports.
const (
	portHTTP     = 80
	portIngest   = 8080
	portWorker   = 8081
	portPostgres = 5432
	portPatroni  = 8008
	portEtcd     = 2379
)

// network is the only one there is.
const network = "10.90.0"

// addresses are the hosts'.
var addresses = func() map[string]netip.Addr {
	all := map[string]netip.Addr{}
	add := func(first int, names ...string) {
		for i, name := range names {
			all[name] = netip.MustParseAddr(fmt.Sprintf("%s.%d", network, first+i))
		}
	}
	add(1, nameApp)
	add(2, namePolar)
	add(3, nameEdge)
	add(11, ingestNames...)
	add(21, workerNames...)
	add(31, databaseNames...)
	add(41, nameEtcd)
	return all
}()

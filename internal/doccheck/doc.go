// Package doccheck holds the tests that keep README.md, docs/ and examples/ true: every command in them is run, every link leads
// somewhere, and the files of deploy/ are given to the programs that they are for.
//
// A page is run from its top to its end, on a machine of its own (world): a database, a fake Polar, ingest and a worker.
// What a fenced block is decides what becomes of it:
//
//	sh       runs in bash; its variables and its folder go on to the next block
//	console  "$ " begins a command, and what it prints has to be what the page shows; ids and times may differ,
//	         "..." stands for any text, and for any lines where it stands alone
//	sql      runs on the page's database
//	go       compiles
//	http     is asked of the worker
//	others   show files and output: json and yaml have to be well formed
//
// A comment right above the block says where it is different: <!-- not run: the reason -->, <!-- exit code: 3 -->, or
// <!-- keeps running, and prints: some text --> for a program that the rest of the page needs.
package doccheck

// Command scenarios runs one scenario with the stock Go client, by name, against the name server given by
// -namesrv. Exit code 0: passed; 1: failed, with the reason on stderr; 2: no such scenario. Without a name, it
// prints all names.
package main

import (
	"flag"
	"fmt"
	"os"
	"sort"
)

var scenarios = map[string]func(*cluster) error{
	"send_sync":         sendSync,
	"send_async":        sendAsync,
	"send_oneway":       sendOneway,
	"send_batch":        sendBatch,
	"send_big_body":     sendBigBody,
	"push_clustering":   pushClustering,
	"push_broadcasting": pushBroadcasting,
	"push_tags":         pushTags,
	"push_resume":       pushResume,
	"push_orderly":      pushOrderly,
	"push_retry":        pushRetry,
	"pull_from":         pullFrom,
	"pull_poll":         pullPoll,
}

func main() {
	namesrv := flag.String("namesrv", "127.0.0.1:9876", "host:port of the name server")
	flag.Parse()
	if flag.NArg() == 0 {
		for _, name := range names() {
			fmt.Println(name)
		}
		return
	}
	scenario, known := scenarios[flag.Arg(0)]
	if !known {
		fmt.Fprintln(os.Stderr, "no scenario is named", flag.Arg(0))
		os.Exit(2)
	}
	if err := run(scenario, *namesrv); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", flag.Arg(0), err)
		os.Exit(1)
	}
	fmt.Printf("%s: passed\n", flag.Arg(0))
}

func run(scenario func(*cluster) error, namesrv string) error {
	c, err := newCluster(namesrv)
	if err != nil {
		return err
	}
	defer c.close()
	return scenario(c)
}

func names() []string {
	var all []string
	for name := range scenarios {
		all = append(all, name)
	}
	sort.Strings(all)
	return all
}

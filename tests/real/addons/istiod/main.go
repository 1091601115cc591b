// istiod as a program of this module: what istio.io/istio pins itself is not all to be had from the module proxy, so the
// versions are chosen in this module's go.mod.
package main

import (
	"fmt"
	"os"

	_ "github.com/KimMachineGun/automemlimit" // The memory limit of the cgroup becomes Go's, as in Istio's own image.
	"istio.io/istio/pilot/cmd/pilot-discovery/app"
	"istio.io/istio/pkg/log"
)

func main() {
	log.EnableKlogWithCobra()
	if err := app.NewRootCommand().Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "istiod:", err)
		os.Exit(1)
	}
}

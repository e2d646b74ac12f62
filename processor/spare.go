package processor

import (
	"os"
	"runtime"
	"sync/atomic"
)

// spare is how many goroutines may run at once beside those for which there is a processor.
const spare = 4

// processors is how many there are, once AddSpare has told Go of more; else 0.
var processors atomic.Int64

// AddSpare lets more goroutines run at once than there are processors. Go looks at the network,
// and lets a goroutine go on that has written to a disk, only where fewer goroutines run than
// may: until then, or for up to 10 ms and then behind all others that wait, the request of a
// client stays where it is. With places to spare it goes on at once, and the operating system
// divides the processors, a millisecond or so at a time, and first to who has used them least.
// This works as long as what takes long does not fill the places, too: see [Turns].
//
// GOMAXPROCS in the environment overrides it. Call it before [New], and once. After it Go no
// longer follows a limit of the container that changes while the process runs.
func AddSpare() {
	if os.Getenv("GOMAXPROCS") != "" {
		return
	}
	n := runtime.GOMAXPROCS(0)
	processors.Store(int64(n))
	runtime.GOMAXPROCS(n + spare)
}

// Count is how many processors there are, within the limit of the container.
func Count() int {
	if n := processors.Load(); n > 0 {
		return int(n)
	}
	return runtime.GOMAXPROCS(0)
}

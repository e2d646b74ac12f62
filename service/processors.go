package service

import "mailsidecar/processor"

// TuneProcessors lets short work go on while long work has the processors, see
// [processor.AddSpare]. GOMAXPROCS overrides it.
func TuneProcessors() { processor.AddSpare() }

package sendmail

import (
	"strings"
)

// mode is what one run of sendmail does.
type mode int

const (
	modeMessage mode = iota // one message on stdin
	modeSMTP                // -bs
	modeQueue               // -bp, mailq
	modeNothing             // -bi, newaliases, -q: nothing to do here
)

// options is what the command line of sendmail came to.
type options struct {
	mode       mode
	fromHeader bool // -t: recipients from To, Cc and Bcc
	ignoreDots bool // -i: a lone dot is text
	// sender is -f or -r; senderGiven distinguishes the null reverse-path from no option.
	sender      string
	senderGiven bool
	fullName    string // -F
	recipients  []string
}

// The options of sendmail(8) by how their argument is read. Those that are
// named nowhere else in this file are ignored with their arguments: -X, -C, -O
// and -o name files and settings in other sendmails, and a careless PHP program
// lets a visitor put them on the command line (CVE-2016-10033).
const (
	flagOptions     = "ticGIUmnvx"        // no argument
	argumentOptions = "frFbBACehLNoOpRVX" // attached or the next word
	attachedOptions = "q"                 // attached, or none
)

// parseOptions reads a command line by the rules of getopt(3): clusters
// (-ti), arguments attached or separate (-fX, -f X), and options up to "--".
// Like GNU's getopt it takes options behind recipients, as CodeIgniter and
// hand-written scripts put them.
func parseOptions(args []string) (options, error) {
	var o options
	for len(args) > 0 {
		word := args[0]
		args = args[1:]
		switch {
		case word == "--":
			o.recipients = append(o.recipients, args...)
			return o, nil
		case len(word) < 2 || word[0] != '-':
			o.recipients = append(o.recipients, word)
		default:
			rest, err := o.cluster(word[1:], args)
			if err != nil {
				return o, err
			}
			args = rest
		}
	}
	return o, nil
}

// cluster reads the options of one word and returns the words that follow,
// without the one that was an option's argument.
func (o *options) cluster(letters string, following []string) ([]string, error) {
	for i := range len(letters) {
		letter, attached := letters[i], letters[i+1:]
		switch {
		case strings.IndexByte(flagOptions, letter) >= 0:
			o.flag(letter)
		case strings.IndexByte(attachedOptions, letter) >= 0:
			o.mode = modeNothing
			return following, nil
		case strings.IndexByte(argumentOptions, letter) < 0:
			return nil, fail(exitUsage, "unknown option -%s", oneLine(string(rune(letter))))
		case attached != "":
			return following, o.argument(letter, attached)
		case len(following) > 0:
			return following[1:], o.argument(letter, following[0])
		default:
			return nil, fail(exitUsage, "option -%c needs an argument", letter)
		}
	}
	return following, nil
}

func (o *options) flag(letter byte) {
	switch letter {
	case 't':
		o.fromHeader = true
	case 'i':
		o.ignoreDots = true
	case 'I':
		o.mode = modeNothing
	}
}

func (o *options) argument(letter byte, value string) error {
	switch letter {
	case 'f', 'r':
		o.sender, o.senderGiven = value, true
	case 'F':
		o.fullName = value
	case 'o':
		if value == "i" {
			o.ignoreDots = true
		}
	case 'b':
		return o.setMode(value)
	}
	return nil
}

func (o *options) setMode(value string) error {
	modes := map[string]mode{"m": modeMessage, "s": modeSMTP, "p": modeQueue, "i": modeNothing}
	mode, ok := modes[value]
	if !ok {
		return fail(exitUsage, "-b%s is not available: only -bm, -bs, -bp and -bi are", oneLine(value))
	}
	o.mode = mode
	return nil
}

package sqlite

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"math/bits"
)

// The form of SQLite's log (https://www.sqlite.org/fileformat2.html#walformat), in octets.
const (
	logHeader   = 32
	frameHeader = 24
	logMagic    = 0x377f0682 // or one more, where checksums are big-endian
	maxPageSize = 64 << 10
)

// logReport is what a log holds.
type logReport struct {
	// header says that the header is damaged: SQLite ignores such a log.
	header bool
	// frames are those that SQLite uses: up to the last commit before the first bad
	// frame, or before the end. length is in octets, with the log's header.
	frames int
	length int64
	// tail says that there are frames of the log which SQLite does not use, be they
	// complete or not.
	tail bool
	// behind are the frames of the same log behind the first bad one.
	behind int
	// lost says that a commit is among the frames that SQLite does not use, other than
	// one that was being written: they may hold accepted mail.
	lost bool
}

// checksum is the running one of SQLite's log.
type checksum [2]uint32

func (c *checksum) add(order binary.ByteOrder, data []byte) {
	a, b := c[0], c[1]
	if order == binary.LittleEndian { // as every log of this machine's kind
		for ; len(data) >= 8; data = data[8:] {
			a += binary.LittleEndian.Uint32(data) + b
			b += binary.LittleEndian.Uint32(data[4:]) + a
		}
	}
	for ; len(data) >= 8; data = data[8:] {
		a += order.Uint32(data) + b
		b += order.Uint32(data[4:]) + a
	}
	*c = checksum{a, b}
}

// storedSum is a checksum as the log has it.
func storedSum(data []byte) checksum {
	return checksum{binary.BigEndian.Uint32(data), binary.BigEndian.Uint32(data[4:])}
}

// logReader goes through a log as SQLite does after a crash, and then on to its end.
type logReader struct {
	r     *bufio.Reader
	order binary.ByteOrder
	sum   checksum
	salt  uint64
	frame []byte // the last one that was read
	logReport
}

// readLog reads a log. pageSize is that of the database file, for a log that does not
// tell its own.
func readLog(r io.Reader, pageSize int) (logReport, error) {
	l := &logReader{r: bufio.NewReaderSize(r, 256<<10)}
	header := make([]byte, logHeader)
	if _, err := io.ReadFull(l.r, header); err != nil {
		return l.logReport, untilEnd(err)
	}
	if own, ok := l.start(header); ok {
		pageSize = own
	} else {
		l.header = true
	}
	l.frame = make([]byte, frameHeader+pageSize)
	err := l.sound()
	if err == nil {
		err = l.rest()
	}
	return l.logReport, untilEnd(err)
}

// untilEnd forgets that there is no more to be read, or only a part of a frame.
func untilEnd(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

// start reads the header, and says whether it is sound.
func (l *logReader) start(header []byte) (pageSize int, ok bool) {
	magic := binary.BigEndian.Uint32(header)
	l.order = binary.LittleEndian
	if magic&1 == 1 {
		l.order = binary.BigEndian
	}
	pageSize = int(binary.BigEndian.Uint32(header[8:]))
	l.salt = binary.BigEndian.Uint64(header[16:])
	l.sum.add(l.order, header[:24])
	ok = magic&^1 == logMagic && pageSize >= 512 && pageSize <= maxPageSize && bits.OnesCount(uint(pageSize)) == 1 && l.sum == storedSum(header[24:])
	l.length = logHeader
	return pageSize, ok
}

func (l *logReader) next() error {
	n, err := io.ReadFull(l.r, l.frame)
	l.tail = l.tail || n >= 16 && l.ours()
	return err
}

// commits says that the frame ends a transaction.
func (l *logReader) commits() bool { return binary.BigEndian.Uint32(l.frame[4:]) != 0 }

// ours says that the frame is one of this log, and not left over from one before.
func (l *logReader) ours() bool {
	return binary.BigEndian.Uint64(l.frame[8:]) == l.salt && binary.BigEndian.Uint32(l.frame) != 0
}

// sound reads the frames that are as SQLite wrote them, and the one behind them.
func (l *logReader) sound() error {
	for n := 1; ; n++ {
		if err := l.next(); err != nil {
			return err
		}
		if l.header { // the first frame is one of the log
			l.salt = binary.BigEndian.Uint64(l.frame[8:])
			return nil
		}
		l.sum.add(l.order, l.frame[:8])
		l.sum.add(l.order, l.frame[frameHeader:])
		if !l.ours() || l.sum != storedSum(l.frame[16:]) {
			return nil
		}
		if l.commits() {
			l.frames, l.length, l.tail = n, logHeader+int64(n)*int64(len(l.frame)), false
		}
	}
}

// rest reads the frames behind a bad one. A transaction that was being written has no
// commit yet, or ends with a commit that is the last frame of the log.
func (l *logReader) rest() error {
	committed := l.commits() // whether the bad frame, or one behind it, is a commit
	if l.header {
		l.length = 0
		if l.ours() {
			l.behind, l.lost = 1, committed
		}
	}
	for {
		if err := l.next(); err != nil {
			return err
		}
		if l.ours() {
			l.behind++
			committed = committed || l.commits()
			l.lost = committed
		}
	}
}

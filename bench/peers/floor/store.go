package main

import (
	"database/sql"
	"fmt"
	"os"
	"strings"
	"time"

	_ "modernc.org/sqlite"
)

// store is one writer that commits whatever has come together, with one fsync.
type store struct {
	db      *sql.DB
	inserts chan insertion
	done    chan int64 // delivered: deleted with the next commit
}

type insertion struct {
	item   item
	result chan<- inserted
}

type inserted struct {
	id  int64
	err error
}

const maxBatch = 512

func openStore(path string) (*store, error) {
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	_, err = db.Exec(`CREATE TABLE message (id INTEGER PRIMARY KEY, sender TEXT, recipients TEXT, content BLOB)`)
	if err != nil {
		return nil, err
	}
	return &store{db: db, inserts: make(chan insertion, maxBatch), done: make(chan int64, 8*maxBatch)}, nil
}

// insert returns when the message is durable.
func (s *store) insert(it item) (int64, error) {
	result := make(chan inserted, 1)
	s.inserts <- insertion{it, result}
	r := <-result
	return r.id, r.err
}

// run commits: at once when a message waits to be accepted, and otherwise the
// deliveries of each 50 ms.
func (s *store) run() {
	for {
		var batch []insertion
		var done []int64
		select {
		case first := <-s.inserts:
			batch = append(batch, first)
		case id := <-s.done:
			done = append(done, id)
			select {
			case first := <-s.inserts:
				batch = append(batch, first)
			case <-time.After(50 * time.Millisecond):
			}
		}
		s.gather(&batch, &done)
		ids, err := s.commit(batch, done)
		for i, in := range batch {
			if err != nil {
				in.result <- inserted{err: err}
				continue
			}
			in.result <- inserted{id: ids[i]}
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "floor:", err)
		}
	}
}

// gather adds further work that is ready, without waiting.
func (s *store) gather(batch *[]insertion, done *[]int64) {
	for len(*batch) < maxBatch && len(*done) < 8*maxBatch {
		select {
		case in := <-s.inserts:
			*batch = append(*batch, in)
		case id := <-s.done:
			*done = append(*done, id)
		default:
			return
		}
	}
}

func (s *store) commit(batch []insertion, done []int64) ([]int64, error) {
	tx, err := s.db.Begin()
	if err != nil {
		return nil, err
	}
	defer tx.Rollback()
	ids := make([]int64, len(batch))
	insert, err := tx.Prepare(`INSERT INTO message (sender, recipients, content) VALUES (?, ?, ?)`)
	if err != nil {
		return nil, err
	}
	defer insert.Close()
	for i, in := range batch {
		result, err := insert.Exec(in.item.sender, strings.Join(in.item.recipients, ","), in.item.content)
		if err != nil {
			return nil, err
		}
		if ids[i], err = result.LastInsertId(); err != nil {
			return nil, err
		}
	}
	remove, err := tx.Prepare(`DELETE FROM message WHERE id = ?`)
	if err != nil {
		return nil, err
	}
	defer remove.Close()
	for _, id := range done {
		if _, err := remove.Exec(id); err != nil {
			return nil, err
		}
	}
	return ids, tx.Commit()
}

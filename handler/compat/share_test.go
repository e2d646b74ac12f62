package compat_test

import (
	"slices"
	"testing"

	"mailsidecar/handler/compat"
	"mailsidecar/queue"
)

// TestAnswerShare: an answer's memory is that of what it lists, also of the ids of other messages.
func TestAnswerShare(t *testing.T) {
	m := queue.Message{ResentAs: slices.Repeat([]string{"0196a3c2-7d1e-7c40-9f0e-3b1d6a1f2c55"}, queue.MaxResent)}
	if got := compat.AnswerShare(m); got != 0 {
		t.Errorf("AnswerShare of a message = %d, want none", got)
	}
	page := slices.Repeat([]queue.Message{m}, 500)
	without := compat.AnswerShare(make([]queue.Message, 500)...)
	if got, ids := compat.AnswerShare(page...), int64(500*queue.MaxResent*36); got < without+3*ids {
		t.Errorf("AnswerShare of a page = %d, without what is sent again %d: that counts not all of %d ids' octets", got, without, ids)
	}
}

package stored

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"mailsidecar/mailer"
)

// TestForm: what is in stores must be readable for ever, so its form is pinned.
func TestForm(t *testing.T) {
	refused := &mailer.Failure{
		Class: mailer.ClassPermanent, Stage: mailer.StageRcpt, Reply: mailer.Reply{Code: 550, Enhanced: "5.1.1", Text: "no such user"},
		Relay: "main", Port: 2525, Text: "refused",
	}
	results := []mailer.Result{
		{ForwardPath: "a@example.org", Reply: mailer.Reply{Code: 250, Enhanced: "2.0.0", Text: "queued"}},
		{ForwardPath: "b@example.org", Reply: refused.Reply, Failure: refused},
	}
	ladder := []mailer.RungReport{
		{Rung: mailer.Rung{Port: 465, Implicit: true}, Won: true, Duration: 42 * time.Millisecond},
		{Rung: mailer.Rung{Port: 587}, Failure: &mailer.Failure{Class: mailer.ClassRelay, Stage: mailer.StageConnect, Text: "no answer"}},
		{Rung: mailer.Rung{Port: 25, Clear: true}},
	}
	const (
		failure     = `{"class":"permanent","stage":"rcpt","code":550,"enhanced":"5.1.1","reply":"no such user","relay":"main","port":2525,"text":"refused"}`
		wantResults = `[{"to":"a@example.org","code":250,"enhanced":"2.0.0","text":"queued"},` +
			`{"to":"b@example.org","code":550,"enhanced":"5.1.1","text":"no such user","failure":` + failure + `}]`
		wantLadder = `[{"port":465,"mode":"tls","won":true,"us":42000},` +
			`{"port":587,"mode":"starttls","us":0,"failure":{"class":"relay","stage":"connect","text":"no answer"}},{"port":25,"mode":"none","us":0}]`
	)
	var storedResults []Result
	pinned(t, PackResults(results), wantResults, &storedResults)
	for i, r := range storedResults {
		if got := r.Unpack(); !reflect.DeepEqual(got, results[i]) {
			t.Errorf("Unpack() = %+v, want %+v", got, results[i])
		}
	}
	var storedLadder []Rung
	pinned(t, PackLadder(ladder), wantLadder, &storedLadder)
	if got := UnpackLadder(storedLadder); !reflect.DeepEqual(got, ladder) {
		t.Errorf("UnpackLadder() = %+v, want %+v", got, ladder)
	}
}

// pinned checks the JSON of a value, and reads it again.
func pinned(t *testing.T, v any, want string, again any) {
	t.Helper()
	got, err := json.Marshal(v)
	if err != nil || string(got) != want {
		t.Errorf("stored form = %s, %v\nwant %s", got, err, want)
	}
	if err := json.Unmarshal(got, again); err != nil {
		t.Fatal(err)
	}
}

// TestAdviceOnPermanent: what is known of a reply is kept with a permanent failure alone.
// Of one that passes, a person sees what is so now.
func TestAdviceOnPermanent(t *testing.T) {
	for class, want := range map[mailer.Class]string{mailer.ClassPermanent: "cause do", mailer.ClassTransient: " ", mailer.ClassRelay: " "} {
		f := PackResult(mailer.Result{Failure: &mailer.Failure{Class: class, Cause: "cause", Remedy: "do"}}).Unpack().Failure
		if got := f.Cause + " " + f.Remedy; got != want {
			t.Errorf("%s: %q is kept, want %q", class, got, want)
		}
	}
}

// TestUnknown: a class of a newer version is transient, as an unknown failure is.
func TestUnknown(t *testing.T) {
	f := (&Failure{Class: "new", Stage: "new"}).Unpack()
	if f.Class != mailer.ClassTransient || f.Stage != mailer.StageContent {
		t.Errorf("Unpack() = %v, %v, want transient, content", f.Class, f.Stage)
	}
}

package integration

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"mailsidecar/integration/machine"
)

// TestTimesUnderAttack prints how long a client waits for its 202, alone and beside the
// attacks of strangers and of one key, when ATTACK_ROUNDS says how often:
//
//	ATTACK_ROUNDS=5 go test ./integration -run TimesUnderAttack -v -timeout 30m
//
// Each round has the three one after the other, each with a server and a store of its own,
// and 2,000 mails after 200 that do not count. What is printed is the median of the rounds'
// quantiles, and of their ratios to the same round alone: what else the machine does is then in
// both. Client and attackers are processes of their own. Server and client get the processor
// before the attackers and the relay, which are other machines in real life: the attackers get
// what nobody else wants, as with nice 19, so that their own work does not count as the server's.
// How many processors the server uses is printed, too: far more beside an attack than alone, or
// the attackers did not get to it. The log is not read: what is measured is how the server divides what it has. ATTACKS is a regular expression of
// attacks, to make only these. With ATTACK_EQUALLY=1 the attackers get the processor as any other
// process does: on a busy machine they get none otherwise, and the ratios say nothing.
func TestTimesUnderAttack(t *testing.T) {
	rounds, err := strconv.Atoi(cmp.Or(os.Getenv("ATTACK_ROUNDS"), "0"))
	if err != nil || rounds < 1 {
		t.Skip("ATTACK_ROUNDS is not set to a number")
	}
	group, others := machine.PreferCPU(t), machine.YieldCPU(t)
	if os.Getenv("ATTACK_EQUALLY") != "" {
		others = nil
	}
	sides := []string{"", roleStrangers, roleOneKey}
	quantiles := []struct {
		name string
		of   int // thousandths
	}{{"p50", 500}, {"p99", 990}, {"p99.9", 999}}
	all := map[string][]float64{} // by side and quantile
	for range rounds {
		for _, side := range sides {
			times := timesBeside(t, group, others, side)
			line := side
			for _, q := range quantiles {
				took := times[(len(times)-1)*q.of/1000]
				alone := append(all[q.name], took)[len(all[side+q.name])]
				all[side+q.name] = append(all[side+q.name], took)
				all[side+q.name+"×"] = append(all[side+q.name+"×"], took/alone)
				line += fmt.Sprintf(", %s %.2f ms (%.1f ×)", q.name, took, took/alone)
			}
			t.Logf("%d mails: %s", len(times), cmp.Or(line, "alone"))
		}
	}
	for _, side := range sides {
		row := "| " + cmp.Or(side, "alone") + " |"
		for _, q := range quantiles {
			row += fmt.Sprintf(" %.2f ms, %.1f × |", median(all[side+q.name]), median(all[side+q.name+"×"]))
		}
		t.Log(row)
	}
}

// timesBeside starts a server and the attackers, and returns how long a client waited for each
// of its mails, in milliseconds, the shortest first.
func timesBeside(t *testing.T, group, others *machine.Cgroup, side string) (times []float64) {
	t.Run(cmp.Or(side, "alone"), func(t *testing.T) {
		a := startAttacked(t, spacious7Bit(t), append(group.Enter(), "/bin/sh", "-c", `exec "$@" >/dev/null 2>&1`, "sh"))
		if side != "" {
			attackers := a.player(t, side)
			attackers.Env = append(attackers.Env, "ATTACKS="+os.Getenv("ATTACKS"))
			if others != nil {
				enter := others.Enter()
				attackers.Path, attackers.Args = enter[0], append(enter, attackers.Args...)
			}
			if _, err := attackers.StdinPipe(); err != nil { // it ends with this process
				t.Fatal(err)
			}
			if err := attackers.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				_ = attackers.Process.Kill()
				_ = attackers.Wait()
			}()
		}
		client := a.player(t, roleClient)
		enter := group.Enter()
		client.Path, client.Args = enter[0], append(enter, client.Args...)
		used, began := a.s.processorTime(t), time.Now()
		out, err := client.Output()
		if err != nil {
			t.Fatalf("client: %v\n%s", err, out)
		}
		t.Logf("the server used %.2f processors", float64(a.s.processorTime(t)-used)/float64(time.Since(began)))
		for line := range strings.Lines(string(out)) {
			us, err := strconv.ParseFloat(strings.TrimSpace(line), 64)
			if err != nil {
				t.Fatalf("client printed %q", line)
			}
			times = append(times, us/1000)
		}
	})
	if len(times) == 0 {
		t.FailNow()
	}
	slices.Sort(times)
	return times
}

// processorTime is how long the server has used processors.
func (s *sidecar) processorTime(t *testing.T) time.Duration {
	t.Helper()
	text, err := os.ReadFile("/proc/" + strconv.Itoa(s.cmd.Process.Pid) + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	// utime and stime (proc(5)), in hundredths of a second. The name before them may have blanks.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	ticks := 0
	for _, f := range fields[11:13] {
		n, err := strconv.Atoi(f)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / 100
}

// What this program does in place of its tests, in processes that one of them starts.
const (
	roleVariable  = "INTEGRATION_ROLE"
	roleClient    = "client"
	roleStrangers = "strangers"
	roleOneKey    = "one key"
)

// player is a process with a role at the server.
func (a *attacker) player(t *testing.T, role string) *exec.Cmd {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path)
	cmd.Args[0] = path
	cmd.Env = []string{roleVariable + "=" + role, "URL=" + a.s.url, "TLS_ADDR=" + a.tlsAddr}
	cmd.Stderr = os.Stderr
	return cmd
}

// playRole returns the status of the process.
func playRole(role string) int {
	a := &attacker{s: &sidecar{url: os.Getenv("URL")}, tlsAddr: os.Getenv("TLS_ADDR"), ctx: context.Background()}
	a.addr = strings.TrimPrefix(a.s.url, "http://")
	var err error
	switch role {
	case roleClient:
		err = a.s.timeMails(os.Stdout, 200, 2000)
	case roleStrangers:
		a.onAndOn(strangers())
	case roleOneKey:
		a.onAndOn(oneKey())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// onAndOn makes all attacks at once, each again and again, until standard input ends.
func (a *attacker) onAndOn(attacks []attack) {
	only := regexp.MustCompile(os.Getenv("ATTACKS"))
	attacks = slices.DeleteFunc(attacks, func(at attack) bool { return !only.MatchString(at.name) })
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	together(len(attacks), func(i int) {
		for {
			attacks[i].run(a)
		}
	})
}

// timeMails sends mail with the honest key, one after the other, and writes how long each
// took, in microseconds. The first ones do not count: the connection, the store and its
// log are new. Each must be accepted.
func (s *sidecar) timeMails(w io.Writer, first, n int) error {
	client := &http.Client{Transport: &http.Transport{}}
	body := []byte(`{"from":"shop@example.com","to":"ana@example.org","subject":"Order 1042","text":"Thank you.\n"}`)
	out := bufio.NewWriter(w)
	for i := range first + n {
		took, err := s.timeMail(client, body)
		if err != nil {
			return fmt.Errorf("mail %d: %w", i+1, err)
		}
		if i >= first {
			fmt.Fprintln(out, took.Microseconds())
		}
		time.Sleep(4 * time.Millisecond)
	}
	return out.Flush()
}

func (s *sidecar) timeMail(client *http.Client, body []byte) (time.Duration, error) {
	r, err := http.NewRequest(http.MethodPost, s.url+"/v1/messages", bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	// See sendSteadily for the key for repeats.
	r.Header = http.Header{
		"Authorization": {"Bearer " + honestKey}, "Content-Type": {"application/json"}, "Idempotency-Key": {fmt.Sprint("mail-", time.Now().UnixNano())},
	}
	began := time.Now()
	resp, err := client.Do(r)
	if err != nil {
		return 0, err
	}
	text, err := io.ReadAll(resp.Body)
	took := time.Since(began)
	_ = resp.Body.Close()
	if err == nil && resp.StatusCode != http.StatusAccepted {
		err = fmt.Errorf("%d %s, want 202", resp.StatusCode, text)
	}
	return took, err
}

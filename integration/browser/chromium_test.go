package browser_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"mailsidecar/integration/machine"
)

// look is how a person sees the pages.
type look struct {
	width      int64
	dark       bool
	withScript bool
}

func (l look) String() string {
	scheme, script := "light", "script"
	if l.dark {
		scheme = "dark"
	}
	if !l.withScript {
		script = "plain"
	}
	return fmt.Sprintf("%d-%s-%s", l.width, scheme, script)
}

// The screens: a phone's, and a wide one.
const (
	phone, wide = 375, 1280
	height      = 900
)

// looks are all that a page must be good in.
func looks() (all []look) {
	for _, width := range []int64{phone, wide} {
		for _, dark := range []bool{false, true} {
			for _, withScript := range []bool{true, false} {
				all = append(all, look{width, dark, withScript})
			}
		}
	}
	return all
}

// everyday is what most people use.
var everyday = look{width: wide, withScript: true}

// tab is a page in a browser of its own, with cookies of its own.
type tab struct {
	t    *testing.T
	ctx  context.Context //nolint:containedctx // of the browser's page
	url  string
	look look

	mu sync.Mutex
	// trouble is what the browser complained about: errors of scripts, and what the page's
	// own policy forbade. foreign are the requests to other servers.
	trouble, foreign []string
	dialogs          int
}

// watcher notes what the page's policy forbids.
const watcher = `addEventListener("securitypolicyviolation", e => {
	(window.violations ||= []).push(e.violatedDirective + " " + e.blockedURI + " " + e.sample);
});`

// open starts a browser with an empty page.
func open(t *testing.T, s *server, l look) *tab {
	t.Helper()
	machine.Needs(t, "scripts/install-browser", "chromium")
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.ExecPath("chromium"), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.Flag("disable-dev-shm-usage", true),
		chromedp.UserDataDir(machine.TempDir(t)), chromedp.WindowSize(int(l.width), height), chromedp.Flag("hide-scrollbars", true))
	allocator, stopAllocator := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, cancel := chromedp.NewContext(allocator)
	p := &tab{t: t, ctx: ctx, url: s.url, look: l}
	// What it was started with is removed after it has ended.
	t.Cleanup(func() {
		_ = chromedp.Cancel(ctx)
		cancel()
		stopAllocator()
	})
	if err := chromedp.Listen(ctx, p.hear); err != nil {
		t.Fatal(err)
	}
	scheme := "light"
	if l.dark {
		scheme = "dark"
	}
	command(p, log.Enable, cdp.Empty{})
	command(p, network.Enable, network.EnableParams{})
	command(p, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: l.width, Height: height, DeviceScaleFactor: 1, Mobile: l.width == phone})
	command(p, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
	command(p, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: watcher})
	p.allowScript(l.withScript)
	return p
}

// command gives the browser a command of its protocol.
func command[P, R any](p *tab, c cdp.Command[P, R], params P) {
	p.t.Helper()
	if _, err := chromedp.Call(p.ctx, c, params); err != nil {
		p.t.Fatalf("%s: %v", c.Method, err)
	}
}

// allowScript says whether pages may run scripts.
func (p *tab) allowScript(yes bool) {
	p.t.Helper()
	command(p, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: !yes})
}

// hear notes what the browser says.
func (p *tab) hear(event any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e := event.(type) {
	case *log.EventEntryAdded:
		// What a page answers with a status of its own, such as 404, is a line, too.
		if e.Entry.Level == log.EntryLevelError && e.Entry.Source != log.EntrySourceNetwork {
			p.trouble = append(p.trouble, "log: "+e.Entry.Text)
		}
	case *runtime.EventExceptionThrown:
		p.trouble = append(p.trouble, "script: "+e.ExceptionDetails.Text)
	case *page.EventJavascriptDialogOpening:
		p.dialogs++
		go func() {
			_, _ = chromedp.Call(p.ctx, page.HandleJavaScriptDialog, page.HandleJavaScriptDialogParams{Accept: true})
		}()
	case *network.EventRequestWillBeSent:
		if u := e.Request.URL; !strings.HasPrefix(u, p.url+"/") && !strings.HasPrefix(u, "data:") && !strings.HasPrefix(u, "about:") {
			p.foreign = append(p.foreign, u)
		}
	}
}

// do does what a person does, within the limit.
func (p *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, machine.Limit)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		p.t.Fatalf("in the browser: %v\nthe page is\n%.4000s", err, p.text())
	}
}

// evaluate returns what an expression is in the page, also where the page itself may run no
// script.
func evaluate[T any](p *tab, expression string) T {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, machine.Limit/2)
	defer cancel()
	if !p.look.withScript {
		p.allowScript(true)
		defer p.allowScript(false)
	}
	for {
		v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
		if err == nil {
			return v
		}
		// The next page may come just now, and what the last one had is gone.
		select {
		case <-ctx.Done():
			p.t.Fatalf("%.200s: %v", expression, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// visit opens a page of the dashboard.
func (p *tab) visit(path string) {
	p.t.Helper()
	p.do(chromedp.Navigate(p.url + path))
}

// signIn signs in with the secret of a key.
func (p *tab) signIn(secret string) {
	p.t.Helper()
	p.visit("/ui/")
	p.do(chromedp.SendKeys(chromedp.CSS(`input[type=password]`), secret), chromedp.Submit(chromedp.CSS(`input[type=password]`)))
	p.await("header.top")
}

// await waits until the page has the element.
func (p *tab) await(selector string) {
	p.t.Helper()
	p.do(chromedp.WaitReady(chromedp.CSS(selector)))
}

// press presses the button with that label, and waits for the page that it leads to.
func (p *tab) press(label string) {
	p.t.Helper()
	find := fmt.Sprintf(`(() => {
		for (const e of document.querySelectorAll("[data-pressed]")) e.removeAttribute("data-pressed");
		const all = [...document.querySelectorAll("main button, main a, main summary")];
		const e = all.find(e => e.textContent.replace(/\s+/g, " ").trim() === %q);
		if (!e) return false;
		for (let d = (e.matches("summary") ? e.parentElement.parentElement : e).closest("details"); d; d = d.parentElement.closest("details")) d.open = true;
		e.setAttribute("data-pressed", "");
		return true;
	})()`, label)
	if !machine.Wait(func() bool { return evaluate[bool](p, find) }) {
		p.t.Fatalf("no button %q on the page\n%.4000s", label, p.text())
	}
	p.do(chromedp.Click(chromedp.CSS("[data-pressed]")))
}

// says waits until the page has the text.
func (p *tab) says(text string) {
	p.t.Helper()
	if !machine.Wait(func() bool { return strings.Contains(p.text(), text) }) {
		p.t.Fatalf("the page does not say %q:\n%.4000s", text, p.text())
	}
}

// text is what the page shows, with single spaces.
func (p *tab) text() string {
	ctx, cancel := context.WithTimeout(p.ctx, 10*time.Second)
	defer cancel()
	if !p.look.withScript {
		p.allowScript(true)
		defer p.allowScript(false)
	}
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string](`document.body ? document.body.innerText : ""`))
	if err != nil {
		return "" // the next page comes just now
	}
	return strings.Join(strings.Fields(text), " ")
}

// picture saves a picture of the whole page into the directory that SCREENSHOTS names, if it
// names one.
func (p *tab) picture(name string) {
	p.t.Helper()
	if dir := os.Getenv("SCREENSHOTS"); dir != "" {
		p.save(filepath.Join(dir, name+".png"), chromedp.FullScreenshot(100))
	}
}

func (p *tab) save(file string, take chromedp.Action[[]byte]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, machine.Limit)
	defer cancel()
	data, err := chromedp.Run(ctx, take)
	if err != nil {
		p.t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o644); err != nil {
		p.t.Fatal(err)
	}
}

// axe is the program that looks for what keeps people out of a page.
var axe = sync.OnceValues(func() (string, error) {
	text, err := os.ReadFile("node_modules/axe-core/axe.min.js")
	return string(text), err
})

// finding is one of axe's.
type finding struct {
	ID, Impact, Help string
	Nodes            []struct {
		HTML           string
		FailureSummary string
	}
}

// check looks at the page that is open: nothing is wider than the screen, nothing was
// forbidden or thrown, no other server was asked, and axe finds nothing serious.
func (p *tab) check(name string) {
	p.t.Helper()
	program, err := axe()
	if err != nil {
		machine.Lacks(p.t, "this machine lacks axe-core: run scripts/install-browser")
	}
	width := evaluate[int64](p, `document.scrollingElement.scrollWidth`)
	if width > p.look.width {
		widest := evaluate[[]string](p, `[...document.querySelectorAll("body *")].filter(e => e.getBoundingClientRect().right > innerWidth + 1).slice(0, 5).map(e => e.outerHTML.slice(0, 120))`)
		p.t.Errorf("%s: the page is %d pixels wide, more than the screen's %d; too wide are %q", name, width, p.look.width, widest)
	}
	evaluate[int](p, program+"; 0")
	found := evaluate[string](p, `axe.run(document, {iframes: false, resultTypes: ["violations"]}).then(r => JSON.stringify(r.violations))`)
	var all []finding
	if err := json.Unmarshal([]byte(found), &all); err != nil {
		p.t.Fatal(err)
	}
	for _, f := range all {
		if f.Impact != "serious" && f.Impact != "critical" {
			continue
		}
		for _, n := range f.Nodes[:min(3, len(f.Nodes))] {
			p.t.Errorf("%s: axe says %s (%s): %s\n%.300s\n%s", name, f.ID, f.Impact, f.Help, n.HTML, n.FailureSummary)
		}
	}
	p.quiet(name)
}

// quiet fails the test if the browser has complained since the last time.
func (p *tab) quiet(name string) {
	p.t.Helper()
	violations := evaluate[[]string](p, `window.violations || []`)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, v := range violations {
		p.t.Errorf("%s: the page's policy forbade %s", name, v)
	}
	for _, line := range p.trouble {
		p.t.Errorf("%s: %s", name, line)
	}
	for _, u := range p.foreign {
		p.t.Errorf("%s: the page asked another server: %s", name, u)
	}
	if p.dialogs > 0 {
		p.t.Errorf("%s: the page opened %d dialogs", name, p.dialogs)
	}
	p.trouble, p.foreign, p.dialogs = nil, nil, 0
}

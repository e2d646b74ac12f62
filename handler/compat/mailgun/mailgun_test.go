package mailgun

import (
	"bytes"
	"cmp"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"mailsidecar/handler/compat/compattest"
)

const good = "from=shop%40example.com&to=ana%40example.org&subject=Hi&text=Hello"

// request is a request to path, or to the usual one, with the shop's key.
func request(path, body string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, cmp.Or(path, "/v3/mg.example.com/messages"), strings.NewReader(body))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth("api", compattest.ShopSecret)
	return r
}

// TestAnswers: a good request, and requests with something wrong in each of the fields
// that an answer can name.
func TestAnswers(t *testing.T) {
	requests := []*http.Request{request("", good)}
	for _, tc := range []struct{ path, body string }{
		{"", "from=x&to=ana%40example.org&text=x"},
		{"", "from=a%40example.com,b%40example.com&to=x&cc=y&bcc=z"},
		{"", good + "&cc=a%40example.org,b"},
		{"", good + "&h:Reply-To=x&h:Sender=y&h:Bcc=z"},
		{"", good + "&h:X%20A=b&h:Date=today&h:Message-Id=x"},
		{"", good + "&h:X-A=a%0D%0Ab"},
		{"", good + "&o:deliverytime=tomorrow"},
		{"", good + "&o:deliverytime=4102444800"},
		{"", good + "&recipient-variables=x"},
		{"", good + "&attachment=x"},
		{"", good + "&t:x=1&template=y&z=1"},
		{"", good + "&subject=b"},
		{"", "from=a%40example.com&to=b%40example.org&subject=a%0D%0Ab&text=x"},
		{"/v3/x/messages.mime", "to=x&message=From:%20a%40example.com%0A%0Ax"},
		{"/v3/x/messages.mime", "to=b%40example.org&message=hello"},
		{"/v3/x/messages.mime", "to=b%40example.org&cc=x"},
		{"/v3/x/messages.mime", "message=From:%20a%40example.com%0ATo:%20x%0A%0Ax"},
		{"/v3/x/messages.mime", "to=b%40example.org&message=From:%20a%0A%0Ax"},
	} {
		requests = append(requests, request(tc.path, tc.body))
	}
	compattest.Answers(t, API, requests)
}

func TestMIME(t *testing.T) {
	const message = "From: Shop <shop@example.com>\nSender: office@example.com\nTo: ana@example.org\nBcc: eve@example.org\nSubject: Hi\n\nHello ä\n.\n"
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for _, to := range []string{"Ana <ana@example.org>", "eve@example.org, bob@example.org"} {
		if err := w.WriteField("to", to); err != nil {
			t.Fatal(err)
		}
	}
	part, err := w.CreateFormFile("message", `a%22b.mime`)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(part, message); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	var desk compattest.Desk
	r := request("/v3/mg.example.com/messages.mime", b.String())
	r.Header.Set("Content-Type", `multipart/form-data; boundary="`+w.Boundary()+`"`)
	if response := desk.Serve(t, API, r); response.Code != 200 {
		t.Fatalf("answer = %d %s", response.Code, response.Body)
	}
	sub, header := desk.One(t)
	if want := []string{"ana@example.org", "eve@example.org", "bob@example.org"}; !slices.Equal(sub.Envelope.ForwardPaths, want) || sub.Envelope.ReversePath != "shop@example.com" {
		t.Errorf("envelope = %+v, want shop@example.com to %v", sub.Envelope, want)
	}
	if header["Bcc"] != nil || header.Get("Message-Id") == "" || !bytes.HasSuffix(sub.Content.Data, []byte("Hello ä\r\n.\r\n")) {
		t.Errorf("message = %q", sub.Content.Data)
	}
}

// multipartBody has the names of files and fields as several clients write them.
const multipartBody = "--x\r\nContent-Disposition: form-data; name=\"from\"\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\nContent-Length: 16\r\n\r\nshop@example.com\r\n" +
	"--x\r\nContent-Disposition: form-data; name=\"to\"\r\n\r\nana@example.org\r\n" +
	"--x\r\nContent-Disposition: form-data; name=\"html\"\r\n\r\n<img src=\"cid:logo.png\">\r\n" +
	"--x\r\nContent-Disposition: form-data; name=\"attachment[0]\"; filename=\"Rechnung \u201eMärz%22.pdf\"\r\nContent-Type: application/octet-stream\r\n\r\nPDF\r\n" +
	"--x\r\nContent-Disposition: form-data; name=\"inline[0]\"; filename=\"logo.png\"\r\nContent-Type: application/octet-stream\r\n\r\nPNG\r\n" +
	"--x--\r\n"

// TestForm: names of files and fields as several clients write them.
func TestForm(t *testing.T) {
	var desk compattest.Desk
	r := request("", multipartBody)
	r.Header.Set("Content-Type", `multipart/form-data; boundary="x"`)
	if response := desk.Serve(t, API, r); response.Code != 200 {
		t.Fatalf("answer = %d %s", response.Code, response.Body)
	}
	sub, _ := desk.One(t)
	for _, want := range []string{"Content-Type: application/pdf", "Content-Id: <logo.png>", "Content-Type: image/png", "filename*"} {
		if !bytes.Contains(sub.Content.Data, []byte(want)) {
			t.Errorf("no %s in\n%s", want, sub.Content.Data)
		}
	}
}

package compose

import (
	"errors"
	"io"
	"mime"
	"net/mail"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/text/encoding/htmlindex"

	"mailsidecar/mailer"
)

// charsetTexts are texts by the name of a charset that mail programs write. Characters
// of Shift_JIS, GBK and Big5 have octets that are ASCII: backslash, at sign, bracket.
var charsetTexts = map[string]string{
	"gbk": "您的订单已发货 鏡乗俓", "GB2312": "订单确认", "gb18030": "订单𠮷㐀€", "Big5": "您的訂單已出貨 功許蓋", "big5-hkscs": "訂單確認",
	"Shift_JIS": "ご注文の表示ソ能十", "x-sjis": "ご注文ﾃｽﾄ", "cp932": "①表示", "EUC-JP": "ご注文の確認ﾃｽﾄ", "EUC-KR": "주문 확인", "ks_c_5601-1987": "주문 확인", "cp949": "똠방각하",
	"tis-620": "ยืนยันคำสั่งซื้อ", "windows-874": "ยืนยัน", "windows-1250": "Příliš žluťoučký", "windows-1251": "Ваш заказ", "windows-1252": "Größe – 5 €",
	"windows-1253": "Παραγγελία", "windows-1254": "Siparişiniz ığ", "windows-1255": "הזמנה", "windows-1256": "طلبك", "windows-1257": "Užsakymas ąč", "windows-1258": "Đơn",
	"koi8-r": "Ваш заказ", "KOI8-U": "Замовлення її", "iso-8859-1": "Größe", "iso-8859-2": "Příliš", "iso-8859-5": "Заказ", "iso-8859-7": "Παραγγελία",
	"iso-8859-8-i": "הזמנה", "iso-8859-9": "Sipariş", "iso-8859-15": "5 € für Œuvre", "macintosh": "Größe", "ibm866": "Заказ",
}

// inCharset returns text in the charset.
func inCharset(t *testing.T, name, text string) string {
	t.Helper()
	octets, err := encodeIn(name, text)
	if err != nil {
		t.Fatalf("%s cannot hold %q: %v", name, text, err)
	}
	return octets
}

func encodeIn(name, text string) (string, error) {
	e, err := htmlindex.Get(canonicalCharset(strings.ToLower(name)))
	if err != nil {
		return "", err
	}
	return e.NewEncoder().String(text)
}

// wordDecoder reads encoded-words as mail programs do: each alone.
var wordDecoder = &mime.WordDecoder{CharsetReader: func(name string, r io.Reader) (io.Reader, error) {
	e, err := htmlindex.Get(canonicalCharset(strings.ToLower(name)))
	if err != nil {
		return nil, err
	}
	return e.NewDecoder().Reader(r), nil
}}

// fieldOf returns the value of a field of the header section, or of the first part's,
// unfolded.
func fieldOf(t *testing.T, data []byte, name string) string {
	t.Helper()
	m := regexp.MustCompile(`(?mi)^` + name + `:((?:[^\r\n]|\r\n[ \t])*)`).FindSubmatch(data)
	if m == nil {
		t.Fatalf("no field %s in %q", name, data)
	}
	return strings.TrimSpace(strings.ReplaceAll(string(m[1]), "\r\n", ""))
}

func readWords(t *testing.T, value string) string {
	t.Helper()
	text, err := wordDecoder.DecodeHeader(value)
	if err != nil || strings.ContainsRune(text, '\uFFFD') || !mailer.IsASCII(value) {
		t.Errorf("%q decodes to %q, %v", value, text, err)
	}
	return text
}

// TestFinishCharsets: raw text of a header section is labelled with the charset that the
// message names for its text, no character is split, and every reader finds the text.
func TestFinishCharsets(t *testing.T) {
	places := map[string]string{
		"top level": "Content-Type: text/plain; charset=\"%\"\n\nx\n",
		"part":      "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: multipart/alternative; boundary=c\n\n--c\nContent-Type: text/plain; charset=%\n\nx\n--c\nContent-Type: text/html; charset=utf-8\n\nx\n--c--\n--b--\n",
	}
	for charset, text := range charsetTexts {
		raw := inCharset(t, charset, text)
		long := strings.Repeat(raw+" ", 40) + raw
		for place, rest := range places {
			message := "From: \"" + raw + "\" <a@x.test>\nTo: " + raw + " <b@x.test>, c@x.test (" + raw + ")\nCc: " + raw + ": d@x.test;\nSubject: " + long + "\nX-Note: " + raw + "\n" +
				strings.ReplaceAll(rest, "%", charset)
			c, err := Finish(t.Context(), []byte(message), FinishOptions{})
			if err != nil {
				t.Errorf("%s at %s: %v", charset, place, err)
				continue
			}
			checkContent(t, c.Content)
			if !slices.Equal(c.Envelope.ForwardPaths, []string{"b@x.test", "c@x.test", "d@x.test"}) || c.Sender != "a@x.test" {
				t.Errorf("%s at %s: from %q to %q", charset, place, c.Sender, c.Envelope.ForwardPaths)
			}
			wantLong := strings.Repeat(text+" ", 40) + text
			if got := readWords(t, fieldOf(t, c.Content.Data, "Subject")); got != wantLong || c.Subject != wantLong {
				t.Errorf("%s at %s: the subject is %q, in lists %q", charset, place, got, c.Subject)
			}
			if label := "=?" + strings.ToLower(charset) + "?"; !strings.Contains(string(c.Content.Data), "Subject: "+label) {
				t.Errorf("%s at %s: no %s in %q", charset, place, label, c.Content.Data)
			}
			for _, word := range strings.Fields(fieldOf(t, c.Content.Data, "Subject")) {
				if one, err := wordDecoder.Decode(word); err != nil || strings.ContainsRune(one, '\uFFFD') || len(word) > maxEncodedWord {
					t.Errorf("%s: the word %q is %q, %v", charset, word, one, err)
				}
			}
			for name, want := range map[string]string{
				"From": text + " <a@x.test>", "To": text + " <b@x.test>, c@x.test (" + text + ")", "X-Note": text,
			} {
				if got := readWords(t, fieldOf(t, c.Content.Data, name)); got != want {
					t.Errorf("%s at %s: %s is %q, want %q", charset, place, name, got, want)
				}
			}
		}
	}
}

// TestFinishExtendedCharsets: characters that Windows has added to a charset are written in
// UTF-8, for not every reader knows them by the charset's name.
func TestFinishExtendedCharsets(t *testing.T) {
	for charset, text := range map[string]string{
		"gb2312": "朱镕基", "GB_2312-80": "ⅰ", "shift_jis": "①表", "x-sjis": "髙橋", "ks_c_5601-1987": "주문 뷁", "EUC-KR": "뷁",
		"iso-8859-1": "5 € “Größe”", "big5": "着",
	} {
		message := "From: a@x.test\nTo: b@x.test\nSubject: " + inCharset(t, charset, text) + "\nContent-Type: text/plain; charset=" + charset + "\n\nx\n"
		c, err := Finish(t.Context(), []byte(message), FinishOptions{})
		if err != nil {
			t.Errorf("%s: %v", charset, err)
			continue
		}
		got := fieldOf(t, c.Content.Data, "Subject")
		if plain, err := new(mime.WordDecoder).DecodeHeader(got); err != nil || plain != text || !strings.HasPrefix(got, "=?utf-8?") {
			t.Errorf("%s: the subject is %q, %v, want %q in UTF-8", charset, got, err, text)
		}
	}
}

// TestFinishQuotedCharset: programs put a charset in quotes that MIME does not know.
func TestFinishQuotedCharset(t *testing.T) {
	c, err := Finish(t.Context(), []byte("From: a@x.test\nTo: b@x.test\nSubject: "+inCharset(t, "gbk", "中文")+"\nContent-Type: text/plain; charset='GBK'\n\nx\n"), FinishOptions{})
	if err != nil || !strings.HasPrefix(fieldOf(t, c.Content.Data, "Subject"), "=?gbk?") {
		t.Errorf("Finish = %q, %v, want the subject in GBK", c.Content.Data, err)
	}
}

// TestFinishPartCharsets: so is the name of a file, in the charset of its part or else of
// the text.
func TestFinishPartCharsets(t *testing.T) {
	for charset, text := range charsetTexts {
		raw := inCharset(t, charset, text)
		for _, own := range []string{"", "; charset=" + charset} {
			first := charset
			if own != "" {
				first = "utf-8"
			}
			message := "From: a@x.test\nTo: b@x.test\nContent-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/plain; charset=" + first + "\n\nx\n--b\n" +
				"Content-Type: text/csv" + own + "\nContent-Disposition: attachment; filename=\"" + raw + ".csv\"\nContent-Description: " + raw + "\n\ny\n--b--\n"
			c, err := Finish(t.Context(), []byte(message), FinishOptions{})
			if err != nil {
				t.Errorf("%s: %v", charset, err)
				continue
			}
			_, params, err := mime.ParseMediaType(fieldOf(t, c.Content.Data, "Content-Disposition"))
			if err != nil || params["filename"] != text+".csv" {
				t.Errorf("%s: filename is %q, %v, want %q", charset, params["filename"], err, text)
			}
			if got := readWords(t, fieldOf(t, c.Content.Data, "Content-Description")); got != text {
				t.Errorf("%s: Content-Description is %q, want %q", charset, got, text)
			}
		}
	}
}

// TestFinishDoubtfulCharset: what is UTF-8 is read so, whatever the message says; a
// charset that says nothing is not believed; and what identifies something is not guessed.
func TestFinishDoubtfulCharset(t *testing.T) {
	for _, tt := range []struct{ contentType, subject, want string }{
		{"text/plain; charset=gbk", "Größe", "=?utf-8?q?Gr=C3=B6=C3=9Fe?="},
		{"text/plain; charset=us-ascii", "Gr\xf6\xdfe", "=?iso-8859-1?q?Gr=F6=DFe?="},
		{"text/plain; charset=iso-2022-jp", "Gr\xf6\xdfe", "=?iso-8859-1?q?Gr=F6=DFe?="},
		{"text/plain; charset=utf-8", "Gr\xf6\xdfe", "=?iso-8859-1?q?Gr=F6=DFe?="},
		{"text/plain; charset=utf-8", "Größe\xc3", "=?utf-8?q?Gr=C3=B6=C3=9Fe=EF=BF=BD?="},
		{"text/plain", "Gr\xf6\xdfe", "=?iso-8859-1?q?Gr=F6=DFe?="},
		{`text/plain; charset="a?q?b"`, "Gr\xf6\xdfe", "=?iso-8859-1?q?Gr=F6=DFe?="},
		{"text/plain; charset=x-mac-turkish", "Gr\xf6\xdfe", "=?x-mac-turkish?q?Gr=F6=DFe?="},
		{"text/plain; charset=gbk", "\xb6\xa9\xb5", "=?utf-8?b?6K6i77+9?="},
		{"message/rfc822; charset=gbk", "\xb6\xa9", "=?gbk?b?tqk=?="},
		{"image/png", "\xb6\xa9", "=?iso-8859-1?b?tqk=?="},
	} {
		c, err := Finish(t.Context(), []byte("From: a@x.test\nTo: b@x.test\nSubject: "+tt.subject+"\nContent-Type: "+tt.contentType+"\n\nx\n"), FinishOptions{})
		if err != nil {
			t.Errorf("%q in %s: %v", tt.subject, tt.contentType, err)
		} else if got := fieldOf(t, c.Content.Data, "Subject"); got != tt.want {
			t.Errorf("%q in %s is %s, want %s", tt.subject, tt.contentType, got, tt.want)
		}
	}
	for _, field := range []string{"To: <\xb6\xa9@x.test>", "Reply-To: x <a@\xb6\xa9.test>", "Message-ID: <\xb6\xa9@x.test>", "Resent-Bcc: \xb6\xa9@x.test", "Cc: \xb6\xa9 <c@x.test>, d\xb6\xa9@x.test"} {
		_, err := Finish(t.Context(), []byte("From: a@x.test\nResent-To: b@x.test\n"+field+"\nContent-Type: text/plain; charset=gbk\n\nx\n"), FinishOptions{})
		if invalid := new(mailer.InvalidError); !errors.As(err, &invalid) || !invalid.Malformed {
			t.Errorf("Finish with %q = %v, want it refused as malformed", field, err)
		}
	}
}

// TestFinishKeepsEncodedWords: an encoded-word that stands beside raw text is not encoded
// again, in any field that is encoded.
func TestFinishKeepsEncodedWords(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"=?utf-8?q?Gr=C3=BC?= Größe", "Grü Größe"},
		{"Größe =?utf-8?q?Gr=C3=BC?=", "Größe Grü"},
		{"Größe =?utf-8?q?Gr=C3=BC?= =?iso-8859-1?Q?=DFe?= Größe", "Größe Grüße Größe"},
		{"=?utf-8?Q?Gr=C3=BC?=é", "Grüé"},
		{"a=?utf-8?Q?Gr=C3=BC?=é", "aGrüé"},
		{"é=?utf-8?B?R3LDvA==?=", "éGrü"},
		{"=?utf-8?Q?two words?= é", "two words é"},
		{"=?utf-8?Q?a;b,c:d<e>(f)@g?= é", "a;b,c:d<e>(f)@g é"},
		{"=?utf-8?B?a;b?= é", "=?utf-8?B?a;b?= é"},
		{"=?utf-8?q?broken é", "=?utf-8?q?broken é"},
		{"=? é ?=", "=? é ?="},
		{"plain =?utf-8?q?Gr=C3=BC?= text é", "plain Grü text é"},
		{strings.Repeat("=?utf-8?q?Gr=C3=BC?= é ", 30) + "end", strings.Repeat("Grü é ", 30) + "end"},
	} {
		phrase := tt.in
		if strings.Contains(phrase, ";") {
			phrase = mailer.Quote(phrase)
		}
		message := "From: \"" + tt.in + "\" <a@x.test>\nReply-To: " + phrase + " <a@x.test>\nTo: b@x.test (" + tt.in + ")\nCc: " + phrase + ": d@x.test;\nSubject: " + tt.in + "\nX-Note: " + tt.in +
			"\nContent-Type: application/x; name=\"" + tt.in + "\"\n\nx\n"
		c, err := Finish(t.Context(), []byte(message), FinishOptions{})
		if err != nil {
			t.Errorf("%q: %v", tt.in, err)
			continue
		}
		checkContent(t, c.Content)
		for name, want := range map[string]string{
			"From": tt.want + " <a@x.test>", "Reply-To": tt.want + " <a@x.test>", "To": "b@x.test (" + tt.want + ")", "Cc": tt.want + " : d@x.test;", "Subject": tt.want, "X-Note": tt.want,
		} {
			if got := readWords(t, fieldOf(t, c.Content.Data, name)); got != want {
				t.Errorf("%s: %q reads %q, want %q", name, tt.in, got, want)
			}
		}
		if _, params, err := mime.ParseMediaType(fieldOf(t, c.Content.Data, "Content-Type")); err != nil || params["name"] != tt.want {
			t.Errorf("name of %q is %q, %v, want %q", tt.in, params["name"], err, tt.want)
		}
		if c.Subject != tt.want {
			t.Errorf("Subject of %q is %q, want %q", tt.in, c.Subject, tt.want)
		}

		m := mailer.Message{From: mailer.Address{Name: tt.in, Email: "a@x.test"}, To: []mailer.Address{{Email: "b@x.test"}}, Subject: tt.in, Text: "x"}
		if c, err = Compose(t.Context(), m, Options{}); err != nil {
			t.Errorf("Compose with %q: %v", tt.in, err)
			continue
		}
		for name, want := range map[string]string{"From": tt.want + " <a@x.test>", "Subject": tt.want} {
			if got := readWords(t, fieldOf(t, c.Content.Data, name)); got != want {
				t.Errorf("Compose: %s: %q reads %q, want %q", name, tt.in, got, want)
			}
		}
		if from, err := (&mail.AddressParser{WordDecoder: wordDecoder}).Parse(fieldOf(t, c.Content.Data, "From")); err != nil || from.Address != "a@x.test" {
			t.Errorf("From of %q is %v, %v", tt.in, from, err)
		}
	}
}

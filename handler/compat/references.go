package compat

import (
	"net/url"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/net/html"
)

// references are the parts of the message that HTML refers to by URLs with the scheme
// cid (RFC 2392 §2): their content ids, as they stand there and with their
// percent-encoding undone.
type references struct {
	html string // that they were read from
	ids  map[string]bool
}

// refersTo says whether the HTML refers to a part with that content id. The HTML is
// read once for all attachments.
func (o *Message) refersTo(id string) bool {
	if o.references.ids == nil || o.references.html != o.HTML {
		if !o.Limit.Charge(2 * len(o.HTML)) {
			return false
		}
		ids := map[string]bool{}
		changeReferences(o.HTML, func(cid string) string {
			ids[cid], ids[decodedID(cid)] = true, true
			return cid
		})
		o.references = references{o.HTML, ids}
	}
	return o.references.ids[id]
}

// referTo makes the HTML refer to a part by another content id.
func (o *Message) referTo(id, other string) {
	if !o.Limit.Charge(2 * len(o.HTML)) {
		return
	}
	changed := changeReferences(o.HTML, func(cid string) string {
		if cid == id || decodedID(cid) == id {
			return other
		}
		return cid
	})
	if o.Limit.count(len(changed) - len(o.HTML)) {
		o.HTML = changed
	}
}

// decodedID undoes the percent-encoding of a URL; what is none stays as it is.
func decodedID(cid string) string {
	if id, err := url.PathUnescape(cid); err == nil {
		return id
	}
	return cid
}

// changeReferences returns the HTML with each content id that it refers to put through
// change. What refers to none, or to an unchanged one, stays as it is, octet for octet.
// The time is linear in the HTML.
func changeReferences(doc string, change func(cid string) string) string {
	return changeHTML(doc, true, change)
}

// changeHTML looks into comments, too, because Outlook reads the HTML in its conditional
// ones; but not into comments in a comment.
func changeHTML(doc string, comments bool, change func(cid string) string) string {
	if !mentions(doc) {
		return doc
	}
	var b strings.Builder
	style := false // the text that comes next is CSS
	z := html.NewTokenizer(strings.NewReader(doc))
	for {
		kind := z.Next()
		raw := string(z.Raw())
		switch kind {
		case html.ErrorToken:
			b.WriteString(raw)
			return b.String()
		case html.StartTagToken, html.SelfClosingTagToken:
			style = len(raw) > len("<style") && strings.EqualFold(raw[:len("<style")], "<style")
			if mentions(raw) {
				raw = changeTag(raw, z.Token(), change)
			}
		case html.TextToken:
			if style {
				raw = changeCSS(raw, change)
			}
		case html.CommentToken:
			if inner, ok := strings.CutPrefix(raw, "<!--"); ok && comments {
				raw = "<!--" + changeHTML(inner, false, change)
			}
		default:
		}
		b.WriteString(raw)
	}
}

// changeTag changes the references in a tag's attributes.
func changeTag(raw string, tag html.Token, change func(string) string) string {
	changed := false
	for i, a := range tag.Attr {
		value := changeValue(a, change)
		changed = changed || value != a.Val
		tag.Attr[i].Val = value
	}
	if !changed {
		return raw
	}
	return tag.String()
}

const scheme = "cid:"

// mentions says whether the scheme stands in the text, in whatever case.
func mentions(text string) bool {
	for {
		i := strings.IndexByte(text, ':')
		if i < 0 {
			return false
		}
		if i >= len("cid") && strings.EqualFold(text[i-len("cid"):i], "cid") {
			return true
		}
		text = text[i+1:]
	}
}

// innerCID is a URL in CSS, or in a list of images.
var innerCID = regexp.MustCompile(`(?i)\bcid:([^\s"'()<>,;]+)`)

// lists are the attributes that hold URLs among other text.
var lists = []string{"style", "srcset", "imagesrcset"}

func changeValue(a html.Attribute, change func(string) string) string {
	if slices.Contains(lists, a.Key) {
		return changeCSS(a.Val, change)
	}
	// Any other attribute is one URL. A program that forgets to encode it leaves blanks
	// in it.
	value := strings.TrimSpace(a.Val)
	if len(value) <= len(scheme) || !strings.EqualFold(value[:len(scheme)], scheme) {
		return a.Val
	}
	cid := strings.Trim(value[len(scheme):], "<>")
	if other := change(cid); other != cid {
		return scheme + other
	}
	return a.Val
}

func changeCSS(text string, change func(string) string) string {
	if !mentions(text) {
		return text
	}
	return innerCID.ReplaceAllStringFunc(text, func(found string) string {
		return found[:len(scheme)] + change(found[len(scheme):])
	})
}

package markup

import (
	"fmt"
	"slices"
	"strings"
	"text/template/parse"
)

// place is where a value stands.
type place int

const (
	inText    place = iota
	inValue         // of a quoted attribute
	inURL           // in an attribute that is an address, behind its beginning
	atURL           // at the beginning of one
	inTag           // where no value may stand
	inComment       // neither there
)

// position is how far a template's HTML is understood.
type position struct {
	place   place
	element string // of the tag
	name    string // of the attribute, as far as it is read
}

var addresses = []string{"href", "src", "action", "formaction", "cite", "poster", "data", "manifest", "xlink:href"}

// check finds the place of each value of a template. A template begins and ends in text.
func (s *Set) check(tree *parse.Tree) error {
	end, err := s.list(tree.Root, position{})
	if err == nil && end.place != inText {
		err = fmt.Errorf("ends within a tag or a comment")
	}
	return err
}

func (s *Set) list(l *parse.ListNode, at position) (position, error) {
	if l == nil {
		return at, nil
	}
	for _, n := range l.Nodes {
		var err error
		if at, err = s.node(n, at); err != nil {
			return at, err
		}
	}
	return at, nil
}

func (s *Set) node(n parse.Node, at position) (position, error) {
	switch n := n.(type) {
	case *parse.TextNode:
		return at.read(string(n.Text))
	case *parse.ActionNode:
		if len(n.Pipe.Decl) > 0 {
			return at, nil // prints nothing
		}
		if at.place == inTag || at.place == inComment {
			return at, fmt.Errorf("%s stands neither in text nor in a quoted attribute", n)
		}
		s.contexts[n] = at.place
		if at.place == atURL {
			at.place = inURL
		}
		return at, nil
	case *parse.IfNode:
		return s.branches(&n.BranchNode, at, false)
	case *parse.WithNode:
		return s.branches(&n.BranchNode, at, false)
	case *parse.RangeNode:
		return s.branches(&n.BranchNode, at, true)
	case *parse.TemplateNode:
		if at.place != inText {
			return at, fmt.Errorf("%s does not stand in text", n)
		}
		if s.trees[n.Name] == nil {
			return at, fmt.Errorf("%s: there is no such template", n)
		}
		return at, nil
	case *parse.CommentNode:
		return at, nil
	default:
		return at, fmt.Errorf("%s is not understood", n)
	}
}

func (s *Set) branches(n *parse.BranchNode, at position, repeated bool) (position, error) {
	end, err := s.list(n.List, at)
	if err != nil {
		return at, err
	}
	other, err := s.list(n.ElseList, at)
	if err != nil {
		return at, err
	}
	if end.place == atURL || other.place == atURL {
		end.place, other.place = max(end.place, other.place), max(end.place, other.place)
	}
	if end.place == inTag && other.place == inTag { // such as {{if .On}} checked{{end}}
		end.name, other.name, at.name = "", "", ""
	}
	if repeated && at.place == atURL || end != other || repeated && end != at {
		return at, fmt.Errorf("the branches of %s end in different places", n)
	}
	return end, nil
}

// read goes on through the template's own text.
func (p position) read(text string) (position, error) {
	for text != "" {
		var err error
		if p, text, err = p.step(text); err != nil {
			return p, err
		}
	}
	return p, nil
}

func (p position) step(text string) (position, string, error) {
	switch p.place {
	case inText:
		return p.text(text)
	case inComment:
		_, rest, ended := strings.Cut(text, "-->")
		if ended {
			p.place = inText
		}
		return p, rest, nil
	case inTag:
		return p.tag(text)
	default:
		_, rest, ended := strings.Cut(text, `"`)
		switch {
		case ended:
			p = position{place: inTag, element: p.element}
		case p.place == atURL:
			p.place = inURL
		}
		return p, rest, nil
	}
}

func (p position) text(text string) (position, string, error) {
	_, rest, opened := strings.Cut(text, "<")
	if !opened {
		return p, "", nil
	}
	if after, ok := strings.CutPrefix(rest, "!--"); ok {
		p.place = inComment
		return p, after, nil
	}
	n := strings.IndexFunc(rest, func(c rune) bool { return !isNameChar(c) && c != '!' && c != '/' })
	if n < 0 {
		n = len(rest)
	}
	if n == 0 {
		return p, "", fmt.Errorf("%q is no tag: write &lt; in text", "<"+rest[:min(len(rest), 10)])
	}
	p.element = strings.ToLower(rest[:n])
	if p.element == "style" || p.element == "plaintext" || p.element == "xmp" {
		return p, "", fmt.Errorf("<%s> is not allowed", p.element)
	}
	p.place = inTag
	return p, rest[n:], nil
}

func isNameChar(c rune) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == ':' || c == '_'
}

func (p position) tag(text string) (position, string, error) {
	c, rest := text[0], text[1:]
	switch {
	case isNameChar(rune(c)):
		p.name += strings.ToLower(string(c))
		return p, rest, nil
	case c == '=':
		return p.value(rest)
	case c == '>':
		if p.element == "script" && !strings.HasPrefix(rest, "</script>") {
			return p, "", fmt.Errorf("a script must be a file of its own")
		}
		return position{}, rest, nil
	case strings.IndexByte(" \t\n/", c) >= 0:
		p.name = ""
		return p, rest, nil
	default:
		return p, "", fmt.Errorf("%q is not understood in the tag %s", text[:min(len(text), 10)], p.element)
	}
}

func (p position) value(text string) (position, string, error) {
	rest, quoted := strings.CutPrefix(text, `"`)
	switch {
	case !quoted || p.name == "":
		return p, "", fmt.Errorf("an attribute of %s is not in double quotes", p.element)
	case strings.HasPrefix(p.name, "on") || p.name == "style" || p.name == "srcdoc" || p.name == "srcset":
		return p, "", fmt.Errorf("the attribute %s is not allowed", p.name)
	case slices.Contains(addresses, p.name):
		p.place = atURL
	default:
		p.place = inValue
	}
	return p, rest, nil
}

package handler

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"mailsidecar/api"
	"mailsidecar/handler/problem"

	"go.yaml.in/yaml/v3"
)

// Every exchange of every test of this package is held against openapi.yaml:
// serve calls contract.hold. What breaks it is reported when all tests are over.
func TestMain(m *testing.M) {
	code := m.Run()
	for _, breach := range contract.breaches {
		fmt.Println("--- FAIL: openapi.yaml:", breach)
		code = 1
	}
	os.Exit(code)
}

var contract = newContract()

// specification is openapi.yaml as far as it is checked.
type specification struct {
	root  map[string]any
	paths []specPath

	mu       sync.Mutex
	breaches []string
	answered map[string]bool // "POST /v1/messages 202"
}

type specPath struct {
	pattern string // as in the document
	match   *regexp.Regexp
	item    map[string]any
}

func newContract() *specification {
	s := &specification{answered: map[string]bool{}}
	if err := yaml.Unmarshal(openAPI, &s.root); err != nil {
		panic(err)
	}
	for pattern, item := range s.root["paths"].(map[string]any) {
		expr := regexp.MustCompile(`\\\{\w+\\\}`).ReplaceAllString(regexp.QuoteMeta(pattern), `[^/]+`)
		s.paths = append(s.paths, specPath{pattern, regexp.MustCompile("^" + expr + "$"), item.(map[string]any)})
	}
	// A path without parameters is meant before one with them.
	slices.SortFunc(s.paths, func(a, b specPath) int { return strings.Count(a.pattern, "{") - strings.Count(b.pattern, "{") })
	return s
}

// operation finds what is said of a request; nil where nothing is.
func (s *specification) operation(method, path string) (pattern string, op map[string]any) {
	for _, p := range s.paths {
		if p.match.MatchString(path) {
			op, _ = p.item[strings.ToLower(method)].(map[string]any)
			return p.pattern, op
		}
	}
	return "", nil
}

// hold checks an exchange. A request must fit only if it was taken: the tests
// send many that do not, on purpose.
func (s *specification) hold(r *http.Request, body []byte, a answer) {
	pattern, op := s.operation(r.Method, r.URL.Path)
	if op == nil {
		return
	}
	var problems []string
	if a.status < 300 {
		problems = append(problems, s.checkRequest(op, r, body)...)
	}
	problems = append(problems, s.checkAnswer(op, a)...)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answered[fmt.Sprintf("%s %s %d", r.Method, pattern, a.status)] = true
	for _, p := range problems {
		s.breaches = append(s.breaches, fmt.Sprintf("%s %s answered with %d: %s", r.Method, r.URL.Path, a.status, p))
	}
}

func (s *specification) checkRequest(op map[string]any, r *http.Request, body []byte) []string {
	var problems []string
	known := map[string]bool{}
	for _, p := range list(op["parameters"]) {
		parameter := s.resolve(p)
		if parameter["in"] == "query" {
			known[parameter["name"].(string)] = true
		}
	}
	for name := range r.URL.Query() {
		if !known[name] {
			problems = append(problems, "parameter "+name+" is not described")
		}
	}
	request, ok := op["requestBody"].(map[string]any)
	if !ok || body == nil || len(body) == 0 && request["required"] == false { // nil: too large to be kept
		return problems
	}
	return append(problems, s.checkContent(request["content"], r.Header.Get("Content-Type"), body)...)
}

func (s *specification) checkAnswer(op map[string]any, a answer) []string {
	responses := op["responses"].(map[string]any)
	response, ok := responses[strconv.Itoa(a.status)]
	if !ok {
		response, ok = responses["default"]
	}
	if !ok || a.status < 400 && responses[strconv.Itoa(a.status)] == nil {
		return []string{"the status is not described"}
	}
	described := s.resolve(response)
	return append(s.checkHeader(described, a.header), s.checkContent(described["content"], a.header.Get("Content-Type"), a.body)...)
}

// usualHeader are fields of HTTP itself, which openapi.yaml leaves out.
var usualHeader = []string{
	"Accept", "Accept-Encoding", "Allow", "Cache-Control", "Connection", "Content-Length", "Content-Type", "Server",
	"Www-Authenticate", "X-Content-Type-Options",
}

// checkHeader checks the fields of an answer: each is described, each that is required is
// there, and our own is described for every answer.
func (s *specification) checkHeader(response map[string]any, header http.Header) []string {
	var problems []string
	fields, _ := response["headers"].(map[string]any)
	if fields[api.HeaderOwn] == nil {
		problems = append(problems, "the field "+api.HeaderOwn+" is not described")
	}
	for name := range header {
		if fields[name] == nil && !slices.Contains(usualHeader, name) {
			problems = append(problems, "the field "+name+" is not described")
		}
	}
	for name, field := range fields {
		described := s.resolve(field)
		value, given := header[name]
		switch {
		case given:
			problems = append(problems, s.validate(described["schema"], strings.Join(value, ","), name)...)
		case described["required"] == true:
			problems = append(problems, "the field "+name+" is missing")
		}
	}
	return problems
}

func (s *specification) checkContent(content any, contentType string, body []byte) []string {
	mediaType, _, err := mime.ParseMediaType(contentType)
	media, ok := content.(map[string]any)[mediaType].(map[string]any)
	if err != nil || !ok {
		return []string{"the type " + contentType + " is not described"}
	}
	if !strings.HasSuffix(mediaType, "json") {
		return nil
	}
	var v any
	if err := json.Unmarshal(body, &v); err != nil {
		return []string{err.Error()}
	}
	return s.validate(media["schema"], v, "body")
}

// resolve follows a $ref.
func (s *specification) resolve(v any) map[string]any {
	m, _ := v.(map[string]any)
	ref, ok := m["$ref"].(string)
	if !ok {
		return m
	}
	at := any(s.root)
	for name := range strings.SplitSeq(strings.TrimPrefix(ref, "#/"), "/") {
		at = at.(map[string]any)[name]
	}
	if at == nil {
		panic("no " + ref)
	}
	return at.(map[string]any)
}

func list(v any) []any {
	l, _ := v.([]any)
	return l
}

// validate is JSON Schema (2020-12), of which it knows what openapi.yaml uses. A
// keyword that it does not know is a breach, so that no keyword goes unchecked.
func (s *specification) validate(schema, v any, path string) []string {
	var problems []string
	add := func(format string, args ...any) { problems = append(problems, path+": "+fmt.Sprintf(format, args...)) }
	given := s.resolve(schema)
	for keyword, want := range given {
		switch keyword {
		case "description", "default", "contentEncoding", "deprecated":
		case "type":
			if !hasType(want, v) {
				add("%v is no %v", v, want)
			}
		case "enum":
			if !slices.ContainsFunc(list(want), func(x any) bool { return reflect.DeepEqual(x, v) }) {
				add("%v is none of %v", v, want)
			}
		case "const":
			if !reflect.DeepEqual(want, v) {
				add("%v is not %v", v, want)
			}
		case "oneOf", "anyOf":
			fits := 0
			for _, option := range list(want) {
				if len(s.validate(option, v, path)) == 0 {
					fits++
				}
			}
			if fits == 0 || keyword == "oneOf" && fits > 1 {
				add("%v fits %d of %s", v, fits, keyword)
			}
		case "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties":
			if !inBounds(keyword, want.(int), v) {
				add("%s %v", keyword, want)
			}
		case "pattern":
			if text, ok := v.(string); ok && !regexp.MustCompile(want.(string)).MatchString(text) {
				add("%q does not match %v", text, want)
			}
		case "format":
			if text, ok := v.(string); ok && want == "date-time" {
				if _, err := time.Parse(time.RFC3339, text); err != nil {
					add("%v", err)
				}
			}
		case "items":
			for i, item := range list(v) {
				problems = append(problems, s.validate(want, item, fmt.Sprintf("%s[%d]", path, i))...)
			}
		case "required", "properties", "additionalProperties":
			// below, together
		default:
			add("the schema has a keyword that is not checked: %s", keyword)
		}
	}
	if members, ok := v.(map[string]any); ok {
		problems = append(problems, s.validateObject(given, members, path)...)
	}
	return problems
}

func (s *specification) validateObject(schema, object map[string]any, path string) []string {
	var problems []string
	properties, _ := schema["properties"].(map[string]any)
	for _, name := range list(schema["required"]) {
		if _, ok := object[name.(string)]; !ok {
			problems = append(problems, fmt.Sprintf("%s: %s is missing", path, name))
		}
	}
	for name, value := range object {
		property, known := properties[name]
		more := schema["additionalProperties"]
		switch {
		case known:
			problems = append(problems, s.validate(property, value, path+"."+name)...)
		case more == false:
			problems = append(problems, fmt.Sprintf("%s: %s is not described", path, name))
		case more != nil:
			problems = append(problems, s.validate(more, value, path+"."+name)...)
		}
	}
	return problems
}

func hasType(want, v any) bool {
	if options, ok := want.([]any); ok {
		return slices.ContainsFunc(options, func(option any) bool { return hasType(option, v) })
	}
	switch v := v.(type) {
	case nil:
		return want == "null"
	case bool:
		return want == "boolean"
	case string:
		return want == "string"
	case float64:
		return want == "number" || want == "integer" && v == math.Trunc(v)
	case []any:
		return want == "array"
	default:
		return want == "object"
	}
}

// inBounds checks the bounds that go with the type of v.
func inBounds(keyword string, bound int, v any) bool {
	var n float64
	what := ""
	switch v := v.(type) {
	case float64:
		n, what = v, "imum"
	case string:
		n, what = float64(utf8.RuneCountInString(v)), "Length"
	case []any:
		n, what = float64(len(v)), "Items"
	case map[string]any:
		n, what = float64(len(v)), "Properties"
	}
	switch {
	case what == "" || !strings.HasSuffix(keyword, what):
		return true
	case strings.HasPrefix(keyword, "min"):
		return n >= float64(bound)
	default:
		return n <= float64(bound)
	}
}

// keepBody reads a request's body and puts it back; a large one is left alone.
func keepBody(r *http.Request) []byte {
	if r.Body == nil || r.ContentLength > 1<<20 {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	rest := io.Reader(r.Body)
	if err != nil {
		rest = failing{err}
	}
	r.Body = io.NopCloser(io.MultiReader(bytes.NewReader(body), rest))
	return body
}

// failing is a reader that has failed.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// TestOpenAPIRoutes: every native route is described, and nothing else is.
func TestOpenAPIRoutes(t *testing.T) {
	s := newTestServer(t, &fakeQueue{}, func(o *Options) {
		o.Relays, o.Operator, o.Metrics, o.Settings, o.Events, o.Compat = &fakeRelays{}, &fakeOperator{}, noMetrics, noSettings, noEvents, nil
	})
	routes := map[string]bool{}
	for _, r := range s.echo.Routes() {
		if r.Method == http.MethodHead || strings.HasPrefix(r.Method, "echo_route") {
			continue
		}
		path := regexp.MustCompile(`:(\w+)`).ReplaceAllString(r.Path, `{$1}`)
		routes[r.Method+" "+path] = true
		if _, op := contract.operation(r.Method, path); op == nil {
			t.Errorf("%s %s is not described", r.Method, path)
		}
	}
	ids := map[string]bool{}
	for _, p := range contract.paths {
		for method, op := range p.item {
			if method == "parameters" {
				continue
			}
			if !routes[strings.ToUpper(method)+" "+p.pattern] {
				t.Errorf("%s %s is described and not served", method, p.pattern)
			}
			id, _ := op.(map[string]any)["operationId"].(string)
			if id == "" || ids[id] {
				t.Errorf("%s %s has no operationId of its own", method, p.pattern)
			}
			ids[id] = true
		}
	}
}

// TestOpenAPICodes: the codes are those that there are.
func TestOpenAPICodes(t *testing.T) {
	schema := contract.resolve(map[string]any{"$ref": "#/components/schemas/Problem"})
	described := map[api.Code]bool{}
	for _, c := range list(schema["properties"].(map[string]any)["code"].(map[string]any)["enum"]) {
		described[api.Code(c.(string))] = true
	}
	for _, c := range problem.Codes() {
		if !described[c] {
			t.Errorf("%s is not described", c)
		}
		delete(described, c)
	}
	for c := range described {
		t.Errorf("%s is described and does not exist", c)
	}
}

func TestGetOpenAPI(t *testing.T) {
	s := newTestServer(t, &fakeQueue{}, nil)
	if a := serve(s, newRequest("GET", "/openapi.yaml", "")); a.status != 200 || !bytes.Equal(a.body, openAPI) {
		t.Errorf("GET /openapi.yaml = %d", a.status)
	}
	if a := serve(s, newRequest("GET", "/openapi.yaml", "", "Authorization: ")); a.status != 401 {
		t.Errorf("GET /openapi.yaml without a key = %d, want 401", a.status)
	}
}

// TestValidate: the validator itself finds what is wrong.
func TestValidate(t *testing.T) {
	for schema, cases := range map[string]map[string]bool{
		`{type: integer, minimum: 2}`:                              {`2`: true, `1`: false, `2.5`: false, `"2"`: false},
		`{type: [array, 'null'], items: {enum: [a]}, maxItems: 1}`: {`null`: true, `["a"]`: true, `["b"]`: false, `["a","a"]`: false},
		`{type: object, required: [a], additionalProperties: false, properties: {a: {type: string, pattern: '^x'}}}`: {`{"a":"x"}`: true, `{"a":"y"}`: false, `{}`: false, `{"a":"x","b":1}`: false},
		`{type: object, additionalProperties: {type: boolean}}`:                                                      {`{"a":true}`: true, `{"a":1}`: false},
		`{oneOf: [{type: string}, {const: x}]}`:                                                                      {`"y"`: true, `"x"`: false, `1`: false},
		`{type: string, format: date-time, minLength: 1}`:                                                            {`"2030-01-31T08:00:00Z"`: true, `"today"`: false},
		`{$ref: '#/components/schemas/State'}`:                                                                       {`"queued"`: true, `"sent"`: false},
		`{not: {}}`:                                                                                                  {`1`: false},
	} {
		var s, v any
		if err := yaml.Unmarshal([]byte(schema), &s); err != nil {
			t.Fatal(err)
		}
		for value, want := range cases {
			if err := json.Unmarshal([]byte(value), &v); err != nil {
				t.Fatal(err)
			}
			if got := contract.validate(s, v, "v"); (len(got) == 0) != want {
				t.Errorf("validate(%s, %s) = %v, want valid: %v", schema, value, got, want)
			}
			v = nil
		}
	}
}

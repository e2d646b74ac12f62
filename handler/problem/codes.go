package problem

import (
	"maps"
	"net/http"
	"slices"

	"mailsidecar/api"
)

// Codes are the codes of all problems, in alphabetical order.
func Codes() []api.Code { return slices.Sorted(maps.Keys(codes)) }

// codeInfo is what every answer with the code says.
type codeInfo struct {
	status int
	title  string
	// retryable is explained at [api.Problem.Retryable].
	retryable bool
	// retryAfter is in seconds; zero leaves the field out.
	retryAfter int
}

var codes = map[api.Code]codeInfo{
	api.CodeMalformedJSON:     {http.StatusBadRequest, "The body is not valid JSON", false, 0},
	api.CodeUnknownField:      {http.StatusBadRequest, "The request has a field that is not known", false, 0},
	api.CodeDuplicateField:    {http.StatusBadRequest, "The request has a field twice", false, 0},
	api.CodeWrongType:         {http.StatusBadRequest, "A field has the wrong type", false, 0},
	api.CodeInvalidBase64:     {http.StatusBadRequest, "A field is not valid base64", false, 0},
	api.CodeMalformedForm:     {http.StatusBadRequest, "The body is not a valid form", false, 0},
	api.CodeMalformedHeader:   {http.StatusBadRequest, "A header field would be malformed", false, 0},
	api.CodeMalformedMessage:  {http.StatusBadRequest, "The body is not a message", false, 0},
	api.CodeInvalidParameter:  {http.StatusBadRequest, "A parameter is not valid", false, 0},
	api.CodeIncompleteBody:    {http.StatusBadRequest, "The body ended early", true, 0},
	api.CodeUnauthorized:      {http.StatusUnauthorized, "An API key is required", false, 0},
	api.CodeCrossOrigin:       {http.StatusForbidden, "Requests from foreign web pages are refused", false, 0},
	api.CodeForeignHost:       {http.StatusForbidden, "The Host header does not name this machine", false, 0},
	api.CodeSenderNotAllowed:  {http.StatusForbidden, "The sender is not allowed", false, 0},
	api.CodeRoleRequired:      {http.StatusForbidden, "The key may not do this", false, 0},
	api.CodeNotFound:          {http.StatusNotFound, "There is no such resource", false, 0},
	api.CodeMessageNotFound:   {http.StatusNotFound, "There is no such message", false, 0},
	api.CodeRelayNotFound:     {http.StatusNotFound, "There is no such relay", false, 0},
	api.CodeMethodNotAllowed:  {http.StatusMethodNotAllowed, "The method is not allowed", false, 0},
	api.CodeBodyTimeout:       {http.StatusRequestTimeout, "The body arrived too slowly", true, 0},
	api.CodeIdempotencyInUse:  {http.StatusConflict, "The first request with this Idempotency-Key is still being answered", true, 1},
	api.CodeNothingToRetry:    {http.StatusConflict, "No recipient can be tried again", false, 0},
	api.CodeAlreadyResent:     {http.StatusConflict, "The message went to that address before", false, 0},
	api.CodeNothingToCancel:   {http.StatusConflict, "Every recipient is in a final state", false, 0},
	api.CodeContentGone:       {http.StatusGone, "The content of the message was removed", false, 0},
	api.CodeBodyTooLarge:      {http.StatusRequestEntityTooLarge, "The body is too large", false, 0},
	api.CodeMessageTooLarge:   {http.StatusRequestEntityTooLarge, "The message is too large", false, 0},
	api.CodeContentType:       {http.StatusUnsupportedMediaType, "The content type is not supported", false, 0},
	api.CodeContentEncoding:   {http.StatusUnsupportedMediaType, "The content encoding is not supported", false, 0},
	api.CodeInvalidMessage:    {http.StatusUnprocessableEntity, "The message cannot be sent as it is", false, 0},
	api.CodeTooManyRecipients: {http.StatusUnprocessableEntity, "The message has too many recipients", false, 0},
	api.CodeTooManyMessages:   {http.StatusUnprocessableEntity, "The batch has too many messages", false, 0},
	api.CodeInvalidBatch:      {http.StatusUnprocessableEntity, "No message of the batch was stored", false, 0},
	api.CodeIdempotencyReused: {http.StatusUnprocessableEntity, "The Idempotency-Key was used with another request", false, 0},
	api.CodeQueueRequired:     {http.StatusUnprocessableEntity, "This needs a queue, and none is configured", false, 0},
	api.CodeRejected:          {http.StatusUnprocessableEntity, "The relay refused the message", false, 0},
	api.CodeCanceled:          {http.StatusUnprocessableEntity, "The message was canceled", false, 0},
	api.CodeHeaderTooLarge:    {http.StatusRequestHeaderFieldsTooLarge, "The request's header is too large", false, 0},
	api.CodeRateLimited:       {http.StatusTooManyRequests, "The key's rate is used up", true, 1},
	api.CodeInternal:          {http.StatusInternalServerError, "Something is wrong with the server", false, 0},
	api.CodeExpired:           {http.StatusBadGateway, "The message expired before a relay took it", true, 60},
	api.CodeRelayDeferred:     {http.StatusBadGateway, "The relay did not take the message now", true, 60},
	api.CodeRelayUnreachable:  {http.StatusServiceUnavailable, "The relay cannot be used now", true, 30},
	api.CodeBusy:              {http.StatusServiceUnavailable, "Too many bytes are in flight", true, 1},
	api.CodeTooManySearches:   {http.StatusServiceUnavailable, "Too many lists and searches are under way", true, 2},
	api.CodeQueueFull:         {http.StatusServiceUnavailable, "The queue is full", true, 60},
	api.CodeDiskFull:          {http.StatusServiceUnavailable, "The disk is full, or nearly", true, 60},
	api.CodeQueueUnavailable:  {http.StatusServiceUnavailable, "The queue's store does not work", true, 60},
	api.CodeShuttingDown:      {http.StatusServiceUnavailable, "The server is shutting down", true, 5},
	api.CodeDraining:          {http.StatusServiceUnavailable, "The server is being drained and takes no new mail", true, 60},
	api.CodeRelayPaused:       {http.StatusServiceUnavailable, "An operator has paused the relay", true, 60},
	api.CodeTimeout:           {http.StatusServiceUnavailable, "The request took too long", true, 5},
	api.CodeUncertain:         {http.StatusGatewayTimeout, "The relay may or may not have taken the message", false, 0},
}

package compat

// OwnTypes are the types that say what becomes of a member.
var OwnTypes = ownTypes

"""The forms that questions and answers have over HTTP, a file each; none has logic of its own."""

package why

import "strings"

// phrases are texts in lower case, one of which a line must hold. In a phrase … is any text, and < and > at the ends of a
// piece are the edges of a word. Regular expressions that say the same take a hundred times as long.
type phrases []string

func (ps phrases) in(lower string) bool {
	for _, phrase := range ps {
		if holds(lower, phrase) {
			return true
		}
	}
	return false
}

func holds(lower, phrase string) bool {
	for {
		piece, more, last := strings.Cut(phrase, "…")
		end := find(lower, piece)
		if end < 0 {
			return false
		}
		if !last {
			return true
		}
		lower, phrase = lower[end:], more
	}
}

// find returns where the first occurrence of piece ends, or -1.
func find(lower, piece string) int {
	word, left := strings.CutPrefix(piece, "<")
	word, right := strings.CutSuffix(word, ">")
	for at := 0; ; {
		i := strings.Index(lower[at:], word)
		if i < 0 {
			return -1
		}
		begin, end := at+i, at+i+len(word)
		inWord := left && begin > 0 && wordByte(lower[begin-1]) || right && end < len(lower) && wordByte(lower[end])
		if !inWord {
			return end
		}
		at = begin + 1
	}
}

func wordByte(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '_' }

// Package results keeps the file in which each of the module's proofs (attacks, faults, figures, fuzzing) leaves its outcome
// for programs, under a key of its own beside the others'.
package results

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// Save puts a value under a key of the file, and leaves what other proofs have put there. A file that is none of ours, or is
// broken, is an error and stays as it is.
func Save(file, key string, value any) error {
	all := map[string]json.RawMessage{}
	text, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(text, &all)
	} else if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("results %s: %w", file, err)
	}
	for k, v := range map[string]any{"apiVersion": "tidegate.io/v1", "kind": "Results", key: value} {
		if all[k], err = json.Marshal(v); err != nil {
			return fmt.Errorf("results %s: %w", file, err)
		}
	}
	if text, err = json.MarshalIndent(all, "", "  "); err == nil {
		err = os.WriteFile(file, append(text, '\n'), 0o644)
	}
	if err != nil {
		return fmt.Errorf("results %s: %w", file, err)
	}
	return nil
}

// A program: reads JSON, squares a number, fails with the exit code that it is told to.
package main

import (
	"encoding/json"
	"fmt"
	"os"
)

type asked struct {
	Number int `json:"number"`
	Exit   int `json:"exit"`
}

func main() {
	var input asked
	if err := json.NewDecoder(os.Stdin).Decode(&input); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(65)
	}
	if input.Exit != 0 {
		fmt.Fprintln(os.Stderr, "as asked")
		os.Exit(input.Exit)
	}
	json.NewEncoder(os.Stdout).Encode(map[string]any{"square": input.Number * input.Number, "attempt": os.Getenv("ATTEMPT")})
}

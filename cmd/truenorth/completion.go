package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	predict "github.com/posener/complete"
	"github.com/willabides/kongplete"
)

type completionCommand struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

func (completionCommand) about() about {
	return about{
		text: `Put it where your shell reads it when it starts. Commands, flags, types of objects and other fixed values are completed;
where a file is meant, files are.`,
		examples: []example{
			{`source <(truenorth completion bash)`, "in ~/.bashrc"},
			{`source <(truenorth completion zsh)`, "in ~/.zshrc, after compinit"},
			{`truenorth completion fish | source`, "in ~/.config/fish/config.fish"},
		},
		noJSON: "it prints a script for a shell",
	}
}

// The scripts have the shell ask this program, which answers where the shell gives it the line so far. Another name
// than ours may be in the way, and a path may hold anything, so that the program is named by a quoted path.
var completionScripts = map[string]string{
	"bash": "complete -o default -o bashdefault -C %[2]s truenorth\n",
	"zsh":  "autoload -U +X bashcompinit && bashcompinit\ncomplete -o default -o bashdefault -C %[2]s truenorth\n",
	"fish": `function __complete_truenorth
    set -lx COMP_LINE (commandline -cp)
    test -z (commandline -ct)
    and set COMP_LINE "$COMP_LINE "
    %[1]s
end
complete -f -c truenorth -a "(__complete_truenorth)"
complete -F -c truenorth -n "__fish_seen_subcommand_from webhook"
`,
}

// Run prints the script.
func (c completionCommand) Run(e *environment) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("looking for this program's own path: %w", err)
	}
	quoted := shellQuoted(self)
	fmt.Fprintf(e.stdout, completionScripts[c.Shell], quoted, shellQuoted(quoted))
	return nil
}

// shellQuoted is a word that every shell takes as it is.
func shellQuoted(word string) string {
	if !strings.ContainsFunc(word, func(r rune) bool {
		return !strings.ContainsRune("/._-+", r) && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	}) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// completes reports whether a shell asks how its line may go on.
func completes(environ []string) bool {
	return slices.ContainsFunc(environ, func(v string) bool { return strings.HasPrefix(v, "COMP_LINE=") && v != "COMP_LINE=" })
}

// complete answers it, and ends the program.
func complete(parser *kong.Kong) {
	kongplete.Complete(parser, kongplete.WithPredictors(map[string]predict.Predictor{
		"objects": predict.PredictSet(plurals()...),
		"files":   predict.PredictFiles("*"),
		"folders": predict.PredictDirs("*"),
	}))
}

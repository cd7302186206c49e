package aks

import (
	"slices"
	"strings"
	"testing"
)

func TestDiff(t *testing.T) {
	d := Embedded().Diff(Oldest, Newest)
	var changes []string
	for _, x := range d.Removed {
		changes = append(changes, "-"+x.Row+" "+x.Text)
	}
	for _, x := range d.Added {
		changes = append(changes, "+"+x.Row+" "+x.Text)
	}
	want := []string{
		"-CF4 .data.mcr.microsoft.com", "-CN1 ServiceTag - AzureCloud.Region:1194",
		"+CF4 *.data.mcr.microsoft.com", "+CF9 mcr.azure.cn", "+CF9 *.data.mcr.azure.cn", "+PF8 packages.aks.azure.com", "+UF8 packages.aks.azure.com",
		"+CN1 ServiceTag - AzureCloud.<Region>:1194", "+DEF4 *.cloud.defender.microsoft.com",
		"+MP10 *.in.applicationinsights.azure.com", "+MC8 *.in.applicationinsights.azure.com", "+MU8 *.in.applicationinsights.azure.com",
	}
	if !slices.Equal(changes, want) {
		t.Errorf("changes %q, want %q", changes, want)
	}
	if !slices.IsSortedFunc(d.Text, func(a, b Change) int { return strings.Compare(a.Date.s, b.Date.s) }) || len(d.Text) < 9 {
		t.Errorf("changes of the text: %v", d.Text)
	}
	if same := Embedded().Diff(Newest, Newest); len(same.Removed)+len(same.Added)+len(same.Text) != 0 {
		t.Errorf("an edition differs from itself: %v", same)
	}
}

func TestEditions(t *testing.T) {
	for text, want := range map[string]string{"": "", "2024-12-11": "", "2026-06-18": "", "2025-04-01": "", "2024-12-10": "known are", "2026-06-19": "known are", "today": "want a day"} {
		if _, err := ParseEdition(text); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("edition %q: error %v, want %q", text, err, want)
		}
	}
}

# The report of tests/gpu/run: report.json and report.md from what there is so far. Wants: out, card, emulated, names,
# results, times, notes.

escape() { printf '%s' "$1" | tr -d '\000-\037' | sed 's/\\/\\\\/g; s/"/\\"/g'; }
whole() { [ -s "$1" ] && [ "$(tail -c 2 "$1")" = "}" ]; } # a JSON object that was written to its end
field() { sed -n "s/.*\"$2\": \"\\{0,1\\}\\([^,\"}]*\\).*/\\1/p" "$1" | head -n 1; } # FILE NAME, of JSON in one line

solve_rows() {
    local name file mark=${emulated:+ (emulated)}
    for name in solve_card solve_ranks solve_torch solve_cpu; do
        file=$out/$name.json
        whole "$file" || continue
        echo "| $(field "$file" engine) | $(field "$file" device) | $(field "$file" rows) x $(field "$file" dim) |" \
            "$(field "$file" seconds)$mark | $(field "$file" passes) | $(field "$file" relative_gap) |" \
            "$(field "$file" reached | sed 's/true/reached/; s/false/not reached/') |"
    done
}

write_json() { # DONE
    local k comma name
    echo "{\"card\": \"$(escape "$card")\", \"emulated\": $([ -n "$emulated" ] && echo true || echo false)," \
        "\"seconds\": $SECONDS, \"complete\": $([ -n "$1" ] && echo true || echo false), \"steps\": ["
    for k in "${!names[@]}"; do
        comma=,
        if [ "$k" -eq $((${#names[@]} - 1)) ]; then comma=; fi
        echo "  {\"name\": \"${names[$k]}\", \"result\": \"${results[$k]}\", \"seconds\": ${times[$k]}," \
            "\"note\": \"$(escape "${notes[$k]}")\"}$comma"
    done
    echo "]"
    for name in kernels torch_gradient solve_card solve_ranks solve_torch solve_cpu; do
        echo ", \"$name\": "
        if whole "$out/$name.json"; then cat "$out/$name.json"; else echo null; fi
    done
    echo "}"
}

write_markdown() { # DONE
    local k
    echo "# Skald on a card"
    echo
    if [ -n "$emulated" ]; then printf '**Emulated device: no figure here is a measurement.**\n\n'; fi
    echo "${card:-No card.} $(git rev-parse --short HEAD 2>/dev/null), $SECONDS s${1:+, complete}."
    echo
    echo "| step | result | s | |"
    echo "| --- | --- | ---: | --- |"
    for k in "${!names[@]}"; do echo "| ${names[$k]} | ${results[$k]} | ${times[$k]} | ${notes[$k]//|//} |"; done
    if [ -s "$out/kernels.md" ]; then printf '\n## Bandwidth\n\n' && cat "$out/kernels.md"; fi
    if [ -s "$out/torch_gradient.md" ]; then echo && cat "$out/torch_gradient.md"; fi
    if whole "$out/solve_card.json" || whole "$out/solve_cpu.json"; then
        printf '\n## Logistic regression, l2 = 1/n, to a relative gap of %s\n\n' "$gap"
        echo "| engine | device | rows | seconds | passes | gap | |"
        echo "| --- | --- | --- | ---: | ---: | ---: | --- |"
        solve_rows
    fi
}

write_report() { # [DONE]
    write_json "${1:-}" >"$out/report.json.new" && mv "$out/report.json.new" "$out/report.json"
    write_markdown "${1:-}" >"$out/report.md.new" && mv "$out/report.md.new" "$out/report.md"
}

#!/bin/bash
# only: release
# Several classes, from labels in a file to labels predicted: every way of training gives one optimum, and what is
# written about it agrees.
source "$(dirname "$0")/lib.bash"
cd "$work" || exit 1

field() { # FILE NAME, of a JSON object
    grep -o "\"$2\": *[-0-9.e+]*" "$1" | head -n 1 | sed 's/.*: *//'
}
close() { # A B TOLERANCE, relative
    awk -v a="$1" -v b="$2" -v t="$3" 'BEGIN { d = a - b; if (d < 0) d = -d; if (b < 0) b = -b; exit !(d <= t * b) }'
}

# Four classes, named as people do, by which words a row has; a tenth are wrong.
expect "generate rcv1" 0 "L_max" "$skald" generate rcv1 --rows 1500 --seed 3 --output two.svm
awk 'BEGIN { srand(5); split("10 -2 3 7.5", name, " ") }
    { split($2, first, ":"); k = rand() < 0.1 ? int(4 * rand()) : (first[1] + ($1 > 0)) % 4
      $1 = name[k + 1]; print }' two.svm >four.svm
common=(--loss softmax --l2 1e-3 --target-gap 1e-7 --max-passes 400 --seed 1)
for b in --no-intercept --intercept; do
    first=""
    for how in "--workers 0" "--workers 2" "--workers 2 --mode sync" "--workers 1 --threads 2"; do
        name="train $how${b:+ $b}"
        # shellcheck disable=SC2086
        expect "$name" 0 "target gap reached" "$skald" train "${common[@]}" $b $how --model four.h5 four.svm
        "$skald" evaluate --model four.h5 --json four.svm >four.json
        objective=$(field four.json objective)
        [ -z "$first" ] && first=$objective
        check "$name: objective $objective as $first" close "$objective" "$first" 2e-7
    done
done
expect "plain tasks" 0 "objective" "$skald" train "${common[@]}" --local off --batch 50 --max-passes 400 --workers 0 \
    --target-gap 1e-3 --model plain.h5 four.svm
expect "sgd" 3 "before the target" "$skald" train "${common[@]}" --algo sgd --max-passes 3 --workers 2 four.svm
expect "l1" 0 "target gap reached" "$skald" train "${common[@]}" --l1 1e-3 --intercept --workers 2 four.svm
expect "weights by class" 0 "target gap reached" "$skald" train "${common[@]}" --class-weight -2=3,7.5=0.5 --workers 1 four.svm
expect "a class that is not there" 1 "has the labels -2 to 10" "$skald" train "${common[@]}" --class-weight 4=3 --workers 1 four.svm
expect "four classes are too many for logistic" 1 "softmax takes more" "$skald" train --loss logistic --workers 1 four.svm

# The same seed, the same bits.
for how in "--workers 0" "--workers 2 --mode sync"; do
    for again in 1 2; do
        # shellcheck disable=SC2086
        "$skald" train "${common[@]}" --intercept $how --quiet --model "bits-$again.h5" four.svm
        "$skald" predict --type decision --model "bits-$again.h5" --output "bits-$again.txt" four.svm
    done
    check "the same bits again, $how" cmp -s bits-1.txt bits-2.txt
done

"$skald" predict --model four.h5 --output labels.txt four.svm
"$skald" predict --model four.h5 --type probability --output p.txt four.svm
"$skald" predict --model four.h5 --type decision --output z.txt four.svm
check "only known labels" test "$(sort -u labels.txt | tr '\n' ' ')" = "$(printf '%s\n' 10 -2 3 7.5 | sort -u | tr '\n' ' ')"
check "probabilities are softmax of the decisions, labels the largest's" awk '
    BEGIN { split("-2 3 7.5 10", name, " ") }
    FILENAME == "z.txt" { for (k = 1; k <= 4; k++) z[FNR, k] = $k; next }
    FILENAME == "p.txt" { sum = 0; for (k = 1; k <= 4; k++) sum += exp(z[FNR, k] - z[FNR, 1])
        for (k = 1; k <= 4; k++) { d = $k - exp(z[FNR, k] - z[FNR, 1]) / sum; if (d > 1e-6 || d < -1e-6) exit 1 }
        next }
    { best = 1; for (k = 2; k <= 4; k++) if (z[FNR, k] > z[FNR, best]) best = k
      if ($1 != name[best]) exit 1 }' z.txt p.txt labels.txt
right=$(cut -d' ' -f1 four.svm | paste - labels.txt | awk '$1 == $2' | wc -l)
check "accuracy of predict ($right rows right) is that of evaluate" \
    close "$(field four.json accuracy)" "$(awk -v r="$right" 'BEGIN { printf "%.12g", r / 1500 }')" 1e-9
check "log loss is that of the probabilities" close "$(field four.json mean_loss)" "$(awk '
    BEGIN { at["-2"] = 1; at["3"] = 2; at["7.5"] = 3; at["10"] = 4 }
    NR == FNR { y[FNR] = $1; next } { loss -= log($(at[y[FNR]])) } END { printf "%.12g", loss / FNR }' four.svm p.txt)" 1e-6

# More classes than features, and a constant for each: what bends the constants takes more room than the model.
awk 'BEGIN { srand(9); for (i = 0; i < 700; i++) { a = rand(); b = rand(); k = rand() < 0.3 ? int(12 * rand()) : int(12 * (a + b) / 2)
    printf "%d 1:%.4f 2:%.4f\n", k, a, b } }' >many.svm
for how in "--workers 0" "--workers 2"; do
    # shellcheck disable=SC2086
    expect "12 classes of 2 features, $how" 0 "target gap reached" "$skald" train --loss softmax --l2 1e-2 --intercept \
        --target-gap 1e-6 --max-passes 2000 --seed 1 $how --model many.h5 many.svm
done

# Two classes are logistic regression with half the regulariser, in the difference.
expect "two classes" 0 "target gap reached" "$skald" train --loss softmax --l2 2e-3 --intercept --target-gap 1e-8 --workers 1 \
    --max-passes 400 --export liblinear:two.txt --model soft.h5 two.svm
expect "logistic" 0 "target gap reached" "$skald" train --loss logistic --l2 1e-3 --intercept --target-gap 1e-8 --workers 1 \
    --max-passes 400 --model logistic.h5 two.svm
"$skald" evaluate --model soft.h5 --json two.svm >soft.json
"$skald" evaluate --model logistic.h5 --json two.svm >logistic.json
check "softmax of two classes is logistic: $(field soft.json objective)" \
    close "$(field soft.json objective)" "$(field logistic.json objective)" 2e-8

if command -v liblinear-predict >/dev/null; then
    sed 's/^7.5 /8 /' four.svm >whole.svm
    "$skald" train "${common[@]}" --intercept --workers 1 --quiet --export liblinear:export.txt --model export.h5 whole.svm
    "$skald" predict --model export.h5 --output ours.txt whole.svm
    expect "liblinear reads the export" 0 "Accuracy" liblinear-predict whole.svm export.txt theirs.txt
    check "liblinear predicts the same" cmp -s ours.txt theirs.txt
    "$skald" predict --model soft.h5 --output ours.txt two.svm
    expect "liblinear reads that of two classes" 0 "Accuracy" liblinear-predict two.svm two.txt theirs.txt
    check "liblinear predicts the same of two" cmp -s ours.txt theirs.txt
fi
expect "labels with a point are not liblinear's" 1 "integers" "$skald" train "${common[@]}" --workers 1 --quiet \
    --export liblinear:no.txt four.svm

# Followed and fetched from elsewhere.
"$skald" coordinator --listen unix:"$work/c" "${common[@]}" --intercept --linger 5s --quiet four.svm &
"$skald" worker --connect unix:"$work/c" --quiet 2>/dev/null &
expect "followed" 0 "model written" "$skald" train --connect unix:"$work/c" --wait 20s --model fetched.h5
wait
"$skald" evaluate --model fetched.h5 --json four.svm >fetched.json
check "the model fetched is the model" close "$(field fetched.json objective)" "$first" 2e-7
finish

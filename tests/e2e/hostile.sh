# only: release
# Nonsense of every kind while a run goes on: whoever sends it is told why and shown out, the coordinator's log says so,
# who does not stop is refused for a while, and the run ends where it would have ended.
# long
. "$(dirname "$0")/lib.bash"
cd "$work" || exit 1
stranger=${STRANGER:-$(dirname "$skald")/stranger}
[ -x "$stranger" ] || { fail "no $stranger: build the target 'stranger'"; finish; }

"$root/launch/certs" certs boss=coordinator one=worker two=worker three=worker me=status || exit 1
"$root/launch/certs" foreign one=worker || exit 1
CERT_DAYS=-1 "$root/launch/certs" certs late=worker || exit 1
"$skald" generate epsilon --rows 400 --output data.h5 >/dev/null || exit 1
with() { echo --tls-ca certs/ca.pem --tls-cert "$1.pem" --tls-key "$1.key"; }
as() { echo certs/ca.pem "$1.pem" "$1.key"; } # the stranger's three words

start() { # LOG OPTION...: a coordinator; $boss, $at
    local log=$1
    shift
    "$skald" coordinator --listen 127.0.0.1:0 --linger 0s --seed 3 "$@" data.h5 2>"$log" >"${log%.log}.out" &
    boss=$!
    for _ in $(seq 300); do grep -q 'listening on' "$log" && break; sleep 0.1; done
    at=$(sed -n 's/.*listening on \([0-9.:]*\),.*/\1/p' "$log")
}
objective() { sed -n 's/.*"objective": *\([^,}]*\).*/\1/p' "$1" | tail -1; }
told_in() { # WORDS FILE
    for _ in $(seq 300); do grep -qF -- "$1" "$2" && return 0; sleep 0.1; done
    return 1
}

shown_out() { # NAME, WHAT THE STRANGER READS, WHAT THE COORDINATOR SAYS, COMMAND...
    local name=$1 words=$2 told=$3
    shift 3
    timeout 60 "$@" >stranger.out 2>&1
    local code=$?
    [ -n "${VERBOSE:-}" ] && sed "s/^/  /" stranger.out
    check "$name: shown out" test $code -ne 124 -a $code -ne 2
    grep -qF -- "$words" stranger.out || { fail "$name is not told '$words': $(cat stranger.out)"; return; }
    told_in "$told" boss.log || { fail "the coordinator does not say '$told' of $name: $(tail -3 boss.log)"; return; }
    pass "$name: told at both ends"
}

# ---- a quiet run, and what it comes to
start quiet.log $(with certs/boss) --workers 2 --target-gap 1e-10 --log quiet.jsonl
"$skald" worker --quiet --connect "$at" --name one $(with certs/one) &
"$skald" worker --quiet --connect "$at" --name two $(with certs/two)
wait $boss
check "the quiet run ends" test $? -eq 0

# ---- the same, with company. Its tasks are slow, so that the strangers come while it goes on.
start boss.log $(with certs/boss) --workers 2 --target-gap 1e-10 --log loud.jsonl --pace 500 \
    --hello-within 1s --offences 1000 --max-message 1M
"$skald" worker --quiet --connect "$at" --name one $(with certs/one) 2>one.log &
one=$!
"$skald" worker --quiet --connect "$at" --name two $(with certs/two) 2>two.log &
two=$!
check "training has begun" told_in "shards" boss.log

malformed="malformed frame: "
for kind in noise zeros truncated length varint type; do
    shown_out "a frame of $kind" "$malformed" "$malformed" "$stranger" "$at" $kind $(as certs/three)
done
first="its first word is no hello"
for kind in empty unknown result heartbeat; do
    shown_out "$kind first" "$first" "$first" "$stranger" "$at" $kind $(as certs/three)
done
shown_out "500 vectors" "a frame of more than" "a frame of more than" "$stranger" "$at" vectors $(as certs/three)
shown_out "a long hello" "its first frame has 300000 bytes" "its first frame has 300000 bytes" "$stranger" "$at" big $(as certs/three)
shown_out "a message over the limit" "larger than max (4194304 vs. 1048576)" "over the limit of 1048576" "$stranger" "$at" huge $(as certs/three)
shown_out "silence" "said nothing for 1 s" "said nothing for 1 s" "$stranger" "$at" silent $(as certs/three)
# who is still sending may find the connection gone before it has read why
shown_out "a flood" "" "$malformed" "$stranger" "$at" flood $(as certs/three)
shown_out "another's name" "with the certificate of 'three' calls itself 'one'" "with the certificate of 'three' calls itself 'one'" "$stranger" "$at" name:one $(as certs/three)
shown_out "a status client with results" "of 'me' does not have the URI name skald:worker" \
    "of 'me' does not have the URI name skald:worker" "$stranger" "$at" result $(as certs/me)
shown_out "a status request that is a result" "not a request of this method" "not a request of this method" \
    "$stranger" "$at" call $(as certs/me)
shown_out "another CA" "" "certificate verify failed" "$stranger" "$at" noise certs/ca.pem foreign/one.pem foreign/one.key
shown_out "an expired certificate" "" "no TLS connection" "$stranger" "$at" noise $(as certs/late)
shown_out "no certificate" "" "did not return a certificate" "$skald" worker --connect "$at" --wait 1s --tls-ca certs/ca.pem

# no gRPC at all: half a connection, half a line, another protocol
port=${at##*:}
trap '' PIPE # it may have let go already
exec 3<>"/dev/tcp/127.0.0.1/$port" && pass "a connection that says nothing"
exec 4<>"/dev/tcp/127.0.0.1/$port" && printf 'GET / HTTP/1.1\r\nHost: x\r\n\r\n' >&4
head -c 100000 /dev/urandom 2>/dev/null >"/dev/tcp/127.0.0.1/$port" || true
check "HTTP is let go of" timeout 30 cat <&4 >/dev/null
check "so is silence" timeout 30 cat <&3 >/dev/null
exec 3<&- 4<&-

check "the run goes on" kill -0 $boss
wait $one
check "worker one ends well" test $? -eq 0
wait $two
check "worker two ends well" test $? -eq 0
wait $boss
check "the run ends" test $? -eq 0
check "it reached its target" grep -q 'target gap reached' boss.out
quiet=$(objective quiet.jsonl) loud=$(objective loud.jsonl)
check "the same optimum ($quiet, $loud)" awk -v a="$quiet" -v b="$loud" 'BEGIN { exit !(a > 0 && (a - b)^2 < (1e-8 * a)^2) }'

# ---- who does not stop is refused for a while; others are not
printf 'worker w0rk\nstatus l00k\n' >tokens
echo w0rk >work.token
echo gu3ss >wrong.token
chmod 600 tokens ./*.token
start boss.log --tls-ca certs/ca.pem --tls-cert certs/boss.pem --tls-key certs/boss.key --workers 1 --offences 3 --refuse-for 5s \
    --target-gap 1e-8
for k in 1 2 3; do
    shown_out "nonsense, $k" "$malformed" "$malformed" "$stranger" "$at" noise $(as certs/three)
done
shown_out "a fourth time" "the certificate of 'three' is refused for another" "knocks again" \
    "$stranger" "$at" noise $(as certs/three)
shown_out "and with a real worker" "after 3 offences, the last: malformed frame" "knocks again" \
    "$skald" worker --connect "$at" --wait 1s --name three $(with certs/three)
for _ in $(seq 60); do # until its time has passed
    "$skald" worker --quiet --connect "$at" --wait 5s --name three $(with certs/three) 2>three.log && break
    grep -q "refused for another" three.log || break
    sleep 0.5
done
check "then it may work again" test ! -s three.log
wait $boss
check "the run with the former offender ends" test $? -eq 0

start boss.log --tls-cert certs/boss.pem --tls-key certs/boss.key --token-file tokens --workers 1 --offences 3 --refuse-for 5s \
    --target-gap 1e-8
for k in 1 2 3; do
    shown_out "a guessed token, $k" "not one of this coordinator's" "not one of this coordinator's" \
        "$skald" worker --connect "$at" --wait 1s --tls-ca certs/ca.pem --token-file wrong.token
done
shown_out "a fourth guess" "127.0.0.1 is refused for another" "knocks again" \
    "$stranger" "$at" noise certs/ca.pem work.token
for _ in $(seq 60); do
    "$skald" worker --quiet --connect "$at" --wait 5s --tls-ca certs/ca.pem --token-file work.token 2>three.log && break
    grep -q "refused for another" three.log || break
    sleep 0.5
done
check "then it may work again" test ! -s three.log
wait $boss
check "the run with tokens ends" test $? -eq 0

# ---- sessions are limited
start boss.log --workers 3 --max-sessions 2 --hello-within 60s --target-gap 1e-8 --wait 60s
strangers=()
for k in 1 2 3; do # one of them is the third
    "$stranger" "$at" silent >"silent.$k" 2>&1 &
    strangers+=($!)
done
for _ in $(seq 300); do grep -q "which is the limit" silent.* && break; sleep 0.1; done
check "a third session of two" grep -q "2 sessions are open, which is the limit" silent.*
check "the coordinator says so" told_in "2 sessions are open, which is the limit" boss.log
kill "${strangers[@]}" $boss 2>/dev/null
wait "${strangers[@]}" $boss 2>/dev/null
finish

# only: release
# Who may speak: TLS both ways, roles, names, tokens. Each stranger is refused with the reason, at both ends, and the run
# that they knock at ends as if they had not.
. "$(dirname "$0")/lib.bash"
cd "$work" || exit 1

"$root/launch/certs" certs boss=coordinator one=worker two=worker me=status chief=operator || exit 1
"$root/launch/certs" foreign one=worker || exit 1
CERT_DAYS=-1 "$root/launch/certs" certs late=worker || exit 1
"$skald" generate epsilon --rows 400 --output data.h5 >/dev/null || exit 1
signed() { # FILE SUBJECT NAMES: by the run's own authority
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "certs/$1.key" -out request -subj "$2" 2>/dev/null &&
        openssl x509 -req -in request -CA certs/ca.pem -CAkey certs/ca.key -CAcreateserial -days 1 -out "certs/$1.pem" \
            -extfile <(echo "subjectAltName=$3") 2>/dev/null || exit 1
}
signed nobody /O=lab URI:skald:worker
signed two-by-dns /O=lab DNS:two,URI:skald:worker
with() { echo --tls-ca "certs/ca.pem" --tls-cert "$1.pem" --tls-key "$1.key"; }

"$skald" coordinator --listen 127.0.0.1:0 $(with certs/boss) --workers 2 --wait 100s --linger 0s --target-gap 1e-8 \
    --health unix:health --model tls.model data.h5 2>boss.log >boss.out &
boss=$!
for _ in $(seq 100); do grep -q 'listening on' boss.log && break; sleep 0.1; done
at=$(sed -n 's/.*listening on \([0-9.:]*\),.*/\1/p' boss.log)

stranger() { # NAME, WHAT THE STRANGER READS, WHAT THE COORDINATOR SAYS, COMMAND...
    local name=$1 words=$2 told=$3
    shift 3
    timeout 20 "$@" >stranger.log 2>&1
    local code=$?
    [ -n "${VERBOSE:-}" ] && cat stranger.log
    check "$name is refused" test $code -eq 1
    check "$name is told why" grep -qF -- "$words" stranger.log
    check "the coordinator tells of $name" grep -qF -- "$told" boss.log
}
worker() { echo "$skald" worker --connect "$at" --wait 1s "$@"; }

stranger "plain text" "it may ask for TLS" "wrong version number" $(worker --name one)
stranger "no certificate" "it may ask for TLS or a certificate" "did not return a certificate" \
    $(worker --name one --tls-ca certs/ca.pem)
stranger "another CA" "certificate verify failed" "no TLS connection" \
    $(worker --name one --tls-ca foreign/ca.pem --tls-cert foreign/one.pem --tls-key foreign/one.key)
stranger "another CA's certificate" "or not believe whoever signed" "certificate verify failed" \
    $(worker --name one --tls-ca certs/ca.pem --tls-cert foreign/one.pem --tls-key foreign/one.key)
stranger "an expired certificate" "certs/late.pem expired on " "" $(worker --name late $(with certs/late))
stranger "another's key" "certs/one.key is not the key of certs/two.pem" "" \
    $(worker --name two --tls-ca certs/ca.pem --tls-cert certs/two.pem --tls-key certs/one.key)
stranger "a status client with results" "of 'me' does not have the URI name skald:worker" \
    "of 'me' does not have the URI name skald:worker" $(worker --name me $(with certs/me))
stranger "another's name" "with the certificate of 'one' calls itself 'two'" "calls itself 'two'" \
    $(worker --name two $(with certs/one))
stranger "nobody in particular" "does not say whose it is" "does not say whose it is" $(worker --name one $(with certs/nobody))
stranger "another's DNS name" "with the certificate of 'two' calls itself 'one'" "calls itself 'one'" \
    $(worker --name one $(with certs/two-by-dns))
stranger "a curious worker" "does not have the URI name skald:status" "does not have the URI name skald:status" \
    "$skald" status --connect "$at" --wait 2s $(with certs/one)
# A probe that cannot speak TLS: an empty request, framed; the answer is {1: SERVING}. Nothing else is answered there.
probe() {
    printf '\0\0\0\0\0' | curl -s --http2-prior-knowledge --unix-socket health -H 'content-type: application/grpc' \
        -H 'te: trailers' --data-binary @- "http://localhost/$1" -D probe.headers | od -An -tx1 | tr -d ' \n'
}
check "a probe in plain text sees health" test "$(probe grpc.health.v1.Health/Check)" = 00000000020801
stranger "a probe that asks for more" "health probes only" "health probes only" "$skald" status --connect unix:health
stranger "a worker at the probes' address" "health probes only" "health probes only" \
    "$skald" worker --connect unix:health --wait 1s
check "a status client sees the run" grep -q gathering <("$skald" status --connect "$at" $(with certs/me))
stranger "a status client that sends a worker away" "of 'me' does not have the URI name skald:operator" \
    "of 'me' does not have the URI name skald:operator" "$skald" drain --connect "$at" --wait 2s $(with certs/me) one
check "an operator may, once there is one" grep -q "training has not begun" \
    <("$skald" drain --connect "$at" --wait 2s $(with certs/chief) one 2>&1)
check "an operator sees the run" grep -q gathering <("$skald" status --connect "$at" $(with certs/chief))

"$skald" worker --quiet --connect "$at" --name one $(with certs/one) &
"$skald" worker --quiet --connect "$at" --name two:7 $(with certs/two-by-dns) || exit 1
wait $!
wait $boss
check "the run ends" test $? -eq 0
check "it reached its target" grep -q 'target gap reached' boss.out

# a shared token over TLS that only the coordinator's certificate makes
printf 'worker w0rk\nstatus l00k\n' >tokens
echo w0rk >work.token
echo l00k >look.token
echo gu3ss >wrong.token
echo w0rk >open.token
chmod 600 tokens ./*.token
chmod 644 open.token
"$skald" coordinator --listen 127.0.0.1:0 --tls-cert certs/boss.pem --tls-key certs/boss.key --token-file tokens \
    --health unix:probes --workers 1 --wait 100s --linger 0s data.h5 2>boss.log >boss.out &
boss=$!
for _ in $(seq 100); do grep -q 'listening on' boss.log && break; sleep 0.1; done
at=$(sed -n 's/.*listening on \([0-9.:]*\),.*/\1/p' boss.log)
stranger "no token" "asks for a token" "asks for a token" $(worker --tls-ca certs/ca.pem)
stranger "a wrong token" "not one of this coordinator's" "not one of this coordinator's" \
    $(worker --tls-ca certs/ca.pem --token-file wrong.token)
stranger "a status token with results" "the token does not allow that" "the token does not allow that" \
    $(worker --tls-ca certs/ca.pem --token-file look.token)
stranger "a secret that others may read" "others may read open.token" "" $(worker --tls-ca certs/ca.pem --token-file open.token)
stranger "a good token at the probes' address" "health probes only" "health probes only" \
    "$skald" status --connect unix:probes --token-file look.token
check "a status token sees the run" grep -q gathering \
    <("$skald" status --connect "$at" --tls-ca certs/ca.pem --token-file look.token)
"$skald" worker --quiet --connect "$at" --tls-ca certs/ca.pem --token-file work.token || exit 1
wait $boss
check "the run with tokens ends" test $? -eq 0

expect_error() { # WORDS, COMMAND...
    local words=$1
    shift
    timeout 20 "$@" >error.log 2>&1
    check "'$words'" grep -qF -- "$words" error.log
}
expect_error "--health is for TLS" "$skald" coordinator --health 127.0.0.1:0 data.h5
expect_error "in plain text; use TLS" "$skald" worker --connect 10.1.2.3:7700 --token-file work.token
expect_error "a TLS certificate needs its key" "$skald" status --connect "$at" --tls-ca certs/ca.pem --tls-cert certs/me.pem
expect_error "--tls-ca: cannot read none.pem" "$skald" status --tls-ca none.pem
expect_error "no PEM text" "$skald" status --tls-ca tokens
finish

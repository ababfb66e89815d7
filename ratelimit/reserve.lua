-- RESERVE takes what a call may cost from all its buckets, or from none.
--
--   KEYS  reservation, the call's buckets, its places, open reservations
--   ARGV  1 id, escaped; empty: only look · 2 lease in ms · 3 seconds that the id is remembered
--         4 the reservation, but for its time · 5 of each bucket: kind, amount, full, period, need,
--         packed · 6 of each key of places: full, need, packed
--         7 there when Redis has lost a reservation: it is taken whatever is left
--
-- Returns {verdict, now and what is left of each of the places, packed; then each bucket, packed},
-- all less what is needed. The verdict is 1 when that is taken, 0 when there is too little, 2 when
-- there is but some may be held by calls whose gateway died: sweep, and try again, 3 when it is
-- taken once more, 4 when it was before: the same id again changes nothing. When it is 0, 2 or 4
-- nothing was written.

local rid, numbers, places, last = ARGV[1], ARGV[5], ARGV[6], #KEYS
local buckets = #numbers / 40 + 1
local states, verdict, lefts, anew = call('MGET', unpack(KEYS, 1, buckets)), 1, ''
local pos, format = 1, string.format
for i = 2, buckets do
  local state = states[i]
  local kind, amount, full, period, need, next = unpacked('<ddddd', numbers, pos)
  --#refill
  if need > 0 and level < need then verdict = 0 end
  level, pos = level - need, next
  --#lasting
  if longer then
    anew = anew or {}
    anew[i] = expiry
  end
  states[i] = pack(BUCKET, level, fraction, at, expiry)
end
pos = 1
local ms = now_ms % 1000
local alive = format('(%d%03d', (now_ms - ms) / 1000, ms)
for i = buckets + 1, last - 1 do
  local full, need, next = unpacked('<dd', places, pos)
  local left = full - need - call('ZCOUNT', KEYS[i], alive, '+inf')
  if need > 0 and left < 0 then verdict = 0 end
  lefts, pos = lefts .. pack('<d', left), next
end

if states[1] then
  verdict = 4
elseif rid == '' then
  verdict = 0
elseif verdict == 0 and not ARGV[7] then
  if call('ZCOUNT', KEYS[last], '-inf', now_ms) > 0 then verdict = 2 end
else
  for i = 2, buckets do
    if anew and anew[i] then
      call('SET', KEYS[i], states[i], 'PX', math.ceil((anew[i] - now) / 1000))
    else
      call('SETRANGE', KEYS[i], '0', states[i])
    end
  end
  -- Places need no expiry: whoever dies with one has an open reservation, which is swept.
  local lease = now_ms + ARGV[2]
  ms = lease % 1000
  lease = format('%d%03d', (lease - ms) / 1000, ms)
  for i = buckets + 1, last do call('ZADD', KEYS[i], lease, rid) end
  call('SET', KEYS[1], ARGV[4] .. pack('<d', now), 'EX', ARGV[3])
  verdict = ARGV[7] and 3 or 1
end
states[1] = pack('<dd', verdict, now) .. lefts
return states

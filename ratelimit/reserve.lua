-- RESERVE takes what a call may cost from all its buckets, or from none.
--
--   KEYS  reservation, open reservations, then the call's buckets
--   ARGV  1 id, escaped; empty: only look · 2 lease in ms · 3 seconds that the id is remembered
--         4 the reservation, but for its time · 5 where the rules begin in it
--         6 there when Redis has lost a reservation: it is taken whatever is left
--
-- Returns {verdict, now, and for each bucket: level, fraction, us until its time runs on}. The
-- verdict is 1 when it is taken (or was: the same id again changes nothing), 0 when a bucket has
-- too little, 2 when it has but some may be held by calls whose gateway died: sweep, and try
-- again, 3 when it is taken once more. When it is 0 or 2 nothing was written, and the levels are
-- as they stand.

local rid, value = ARGV[1], ARGV[4]
local list = rules(value, ARGV[5] + 0, #value)
local states, verdict = call('MGET', unpack(KEYS)), 1
for i, b in ipairs(list) do
  if b[KIND] == PLACES then
    b[LEVEL], b[FRACTION], b[AT] = b[FULL] - call('ZCOUNT', b[KEY], string.format('(%.0f', now_ms), '+inf'), 0, now
  else
    refill(b, states[i + 2])
  end
  if b[NEED] > 0 and b[LEVEL] < b[NEED] then verdict = 0 end
end

if states[1] then
  verdict = 1
elseif rid == '' then
  verdict = 0
elseif verdict == 0 and not ARGV[6] then
  if call('ZCOUNT', KEYS[2], '-inf', now_ms) > 0 then verdict = 2 end
else
  local lease = string.format('%.0f', now_ms + ARGV[2])
  for _, b in ipairs(list) do
    b[LEVEL] = b[LEVEL] - b[NEED]
    -- Places need no expiry: whoever dies with one has an open reservation, which is swept.
    if b[KIND] == PLACES then call('ZADD', b[KEY], lease, rid) else store(b) end
  end
  call('SET', KEYS[1], value .. pack('<d', now), 'EX', ARGV[3])
  call('ZADD', KEYS[2], lease, rid)
  verdict = ARGV[6] and 3 or 1
end

local reply, n = {verdict, now}, 2
for _, b in ipairs(list) do
  reply[n + 1], reply[n + 2], reply[n + 3] = b[LEVEL], b[FRACTION], b[AT] - now
  n = n + 3
end
return reply

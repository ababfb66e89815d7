-- What the scripts of the Redis limiter share: the clock and the buckets. It stands in front of
-- each, so that a script's text depends on settings but never on a call. All of it is run each
-- time: a function that is made costs as much as a few that are called, so there are few, and
-- numbers of a bucket are locals, not fields of a table.
--
-- Integers only: a number of Lua is a float64, exact to 2^53, and no intermediate result below
-- is larger. Large numbers become text by '%.0f', by digits() or as arguments of redis.call,
-- never by '..' or tostring, which keep 14 digits.
--
-- A script reads all buckets it may write before its first write: in a Redis Cluster whose
-- slot is on the move, what fails there has changed nothing.
--
-- Buckets and reservations are packed strings: what is read and written in one command each
-- costs half of what a hash does.

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local call, pack, unpacked = redis.call, struct.pack, struct.unpack
local fmod, floor, format, sub = math.fmod, math.floor, string.format, string.sub
local now_ms = floor(now / 1000)

local STEADY, DAY, PLACES = 0, 1, 3 -- 2: a calendar month
local DEEPEST = -4e15 -- debt

-- A bucket: level, fraction, time, expiry of its key. Times are in microseconds, the fraction in
-- 1/period of a token. One that is not there is full. Gateways of before wrote no expiry.
local BUCKET, BUCKET_SIZE = '<dddd', 32

-- A bucket's rule and its key in a reservation, as the gateway packs them: kind, dimension, hard,
-- amount, full, period, need, key.
local RULE = '<BBBi8i8i8i8I2c0'

-- A cost: requests, input, output, frames, bytes of frames, money.
local COST, COST_SIZE = '<i8i8i8i8i8i8', 48

-- A reservation: 'open' · '1' if its gateway was asked whether it lives, else '0' · cost used so
-- far, as last told · cost of extensions · word of the last extension (16 bytes) · row if the
-- call is lost · organisation · rules · time. One whose gateway was taken for dead: the same with 'lost', and the
-- cost used is what it was settled at. One that has ended: 'settled', or 'unknown' if it never was.
local ASKED, USED, MORE, WORD, TEXTS = 5, 6, 54, 102, 118

-- digits writes milliseconds; two small numbers cost half of a large one.
local function digits(ms)
  local seconds = floor(ms / 1000)
  return format('%d%03d', seconds, ms - seconds * 1000)
end

-- older reports whether a time is in an earlier calendar period than another. Most are of one
-- day. Months are counted from March on, so that the leap day is a year's last.
local function older(kind, us, than)
  local from, to = floor(us / 86400000000), floor(than / 86400000000)
  if from == to then return false end
  if kind == DAY then return from < to end
  local function month(day)
    day = day + 719468
    local era = floor(day / 146097)
    local d = day - era * 146097
    local year = floor((d - floor(d / 1460) + floor(d / 36524) - floor(d / 146096)) / 365)
    d = d - (365 * year + floor(year / 4) - floor(year / 100))
    return (year + era * 400) * 12 + floor((5 * d + 2) / 153)
  end
  return month(from) < month(to)
end

-- refill is a bucket by now: its level, fraction, time and expiry. A full one is like one that is
-- not there. Time never runs back: a bucket that was touched at a later time waits for it,
-- unless that is further ahead than two periods, when a clock was wrong and it begins anew.
--
-- What comes in dt: level + floor((dt * amount + fraction) / period), and the remainder. The
-- product has up to 67 bits, so the amount is taken in two halves of 15.
local function refill(state, kind, amount, full, period)
  if not state then return full, 0, now, 0 end
  local level, fraction, at, expiry
  if #state >= BUCKET_SIZE then
    level, fraction, at, expiry = unpacked(BUCKET, state)
  else
    level, fraction, at = unpacked('<ddd', state)
    expiry = 0
  end
  if level >= full or at - now > 2 * period then return full, 0, now, expiry end
  if fraction >= period then fraction = 0 end -- the rule had a longer one
  if at >= now then return level, fraction, at, expiry end
  if kind ~= STEADY then
    if older(kind, at, now) then return full, 0, now, expiry end
    return level, 0, now, expiry
  end
  local product = (now - at) * amount + fraction
  if product < 9e15 then
    local over = fmod(product, period)
    level = level + (product - over) / period
    if level >= full then return full, 0, now, expiry end
    return level, over, now, expiry
  end
  local rest = fmod(now - at, period)
  local gained = (now - at - rest) / period * amount
  if gained >= full - level then return full, 0, now, expiry end
  local low = fmod(amount, 32768)
  product = rest * ((amount - low) / 32768)
  local over = fmod(product, period)
  gained = gained + (product - over) / period * 32768
  product = over * 32768 + rest * low + fraction
  over = fmod(product, period)
  level = level + gained + (product - over) / period
  if level >= full then return full, 0, now, expiry end
  return level, over, now, expiry
end

-- lasting is when the key of a bucket is to expire: not before the bucket has been full for a
-- minute. A key that lasts that long stays as it is, so that most writes set no expiry.
local function lasting(level, at, expiry, kind, amount, full, period)
  local filled = at + (kind == STEADY and (full - level) / amount * period or period)
  if filled + 60000000 <= expiry then return expiry, false end
  return math.min(filled + 120000000, now + 1e17), true
end

-- store writes a bucket that was packed; anew is the expiry of its key if that is to change. What
-- is there may else be written over: the script has read it, and no key expires while one runs.
local function store(key, state, anew)
  if anew then return call('SET', key, state, 'PX', math.ceil((anew - now) / 1000)) end
  call('SETRANGE', key, '0', state)
end

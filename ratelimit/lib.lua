-- What the scripts of the Redis limiter share: the clock and the buckets. It stands in front of
-- each, so that a script's text depends on settings but never on a call. All of it is run each
-- time, which is why it is no longer than it is.
--
-- Integers only: a number of Lua is a float64, exact to 2^53, and no intermediate result below
-- is larger. Numbers become text by '%.0f' or as arguments of redis.call, never by '..' or
-- tostring, which keep 14 digits.
--
-- A script reads all buckets it may write before its first write: in a Redis Cluster whose
-- slot is on the move, what fails there has changed nothing.
--
-- Buckets and reservations are packed strings: what is read and written in one command each
-- costs half of what a hash does.

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local now_ms = math.floor(now / 1000)

local STEADY, DAY, PLACES = 0, 1, 3 -- 2: a calendar month
local DEEPEST = -4e15 -- debt
local call, pack, unpacked = redis.call, struct.pack, struct.unpack
local fmod, floor = math.fmod, math.floor

-- A bucket: level, fraction, time. The time is in microseconds, the fraction in 1/period of a
-- token. One that is not there is full.
local BUCKET = '<ddd'

-- A bucket's rule and its key in a reservation, as the gateway packs them, and where they are
-- in the table that they are unpacked into, behind what is found out of the bucket.
local RULE = '<BBBi8i8i8i8I2c0'
local LEVEL, FRACTION, AT = 1, 2, 3
local KIND, DIM, HARD, AMOUNT, FULL, PERIOD, NEED, KEY, NEXT = 4, 5, 6, 7, 8, 9, 10, 11, 12

-- A cost: requests, input, output, frames, bytes of frames, money.
local COST, COST_SIZE = '<i8i8i8i8i8i8', 48

-- A reservation: 'open' · '1' if its gateway was asked whether it lives, else '0' · cost used so
-- far, as last told · cost of extensions · word of the last extension (16 bytes) · row if the
-- call is lost · organisation · rules · time. One whose gateway was taken for dead: the same with 'lost', and the
-- cost used is what it was settled at. One that has ended: 'settled', or 'unknown' if it never was.
local ASKED, USED, MORE, WORD, TEXTS = 5, 6, 54, 102, 118

-- rules are the buckets of a reservation, and their keys.
local function rules(value, pos, last)
  local list, keys, n = {}, {}, 0
  while pos < last do
    local b = {0, 0, 0, unpacked(RULE, value, pos)}
    pos, n = b[NEXT], n + 1
    list[n], keys[n] = b, b[KEY]
  end
  return list, keys
end

-- calendar counts the UTC days or months to a time. Months are counted from March on, so that
-- the leap day is a year's last.
local function calendar(kind, us)
  local day = floor(us / 86400000000)
  if kind == DAY then return day end
  day = day + 719468
  local era = floor(day / 146097)
  local d = day - era * 146097
  local year = floor((d - floor(d / 1460) + floor(d / 36524) - floor(d / 146096)) / 365)
  d = d - (365 * year + floor(year / 4) - floor(year / 100))
  return (year + era * 400) * 12 + floor((5 * d + 2) / 153)
end

-- older reports whether a time is in an earlier calendar period than another. Most are of one day.
local function older(kind, us, than)
  if floor(us / 86400000000) == floor(than / 86400000000) then return false end
  return calendar(kind, us) < calendar(kind, than)
end

-- flow lets in what comes in dt: level + floor((dt * amount + fraction) / period), and the
-- remainder. The product has up to 67 bits, so the amount is taken in two halves of 15.
local function flow(level, fraction, dt, amount, full, period)
  local rest = fmod(dt, period)
  local gained = (dt - rest) / period * amount
  if gained >= full - level then return full, 0 end
  local low = fmod(amount, 32768)
  local product = rest * ((amount - low) / 32768)
  local over = fmod(product, period)
  gained = gained + (product - over) / period * 32768
  product = over * 32768 + rest * low + fraction
  over = fmod(product, period)
  level = level + gained + (product - over) / period
  if level >= full then return full, 0 end
  return level, over
end

-- refill brings a bucket to now: its level, fraction and time. A full one is like one that is
-- not there. Time never runs back: a bucket that was touched at a later time waits for it,
-- unless that is further ahead than two periods, when a clock was wrong and it begins anew.
local function refill(b, state)
  local full, period = b[FULL], b[PERIOD]
  b[LEVEL], b[FRACTION], b[AT] = full, 0, now
  if not state then return end
  local level, fraction, at = unpacked(BUCKET, state)
  if level >= full or at - now > 2 * period then return end
  if fraction >= period then fraction = 0 end -- the rule had a longer one
  if at < now then
    if b[KIND] == STEADY then
      level, fraction = flow(level, fraction, now - at, b[AMOUNT], full, period)
    elseif older(b[KIND], at, now) then
      return
    else
      fraction = 0
    end
    at = now
  end
  b[LEVEL], b[FRACTION], b[AT] = level, fraction, at
end

-- store writes a bucket, for as long as it is not full and a minute more.
local function store(b)
  local ttl = b[PERIOD]
  if b[KIND] == STEADY then ttl = (b[FULL] - b[LEVEL]) / b[AMOUNT] * ttl end
  ttl = math.min((ttl + b[AT] - now) / 1000 + 60000, 1e14)
  call('SET', b[KEY], pack(BUCKET, b[LEVEL], b[FRACTION], b[AT]), 'PX', math.ceil(ttl))
end

-- What the scripts of the Redis limiter share: the clock and the forms of what is kept. It stands
-- in front of each, so that a script's text depends on settings but never on a call.
--
-- All of a script is run each time. A function that is made costs as much as several lines that
-- are run, and each name that it uses of what is around it as much again. So what all calls need
-- is not in functions but in parts, which are put where a line names them as "--#part"; and the
-- numbers of a bucket are locals, not fields of a table.
--
-- Integers only: a number of Lua is a float64, exact to 2^53, and no intermediate result below
-- is larger. a % b is exact up to 2^52. Large numbers become text by '%.0f', as two small ones (which
-- costs half) or as arguments of redis.call, never by '..' or tostring, which keep 14 digits.
--
-- A script reads all buckets it may write before its first write: in a Redis Cluster whose
-- slot is on the move, what fails there has changed nothing.
--
-- Buckets and reservations are packed strings: what is read and written in one command each
-- costs half of what a hash does.

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local now_ms = (now - now % 1000) / 1000
local call, pack, unpacked, sub = redis.call, struct.pack, struct.unpack, string.sub

local STEADY, PLACES = 0, 3 -- 1: a calendar day, 2: a month
local DEEPEST = -4e15 -- debt

-- A bucket: level, fraction, time, expiry of its key. Times are in microseconds, the fraction in
-- 1/period of a token. One that is not there is full. Gateways of before wrote no expiry.
local BUCKET, BUCKET_SIZE, BUCKET_BEFORE = '<dddd', 32, '<ddd'

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

-- older reports whether a time is in an earlier calendar period than another. Most are of one
-- day. Months are counted from March on, so that the leap day is a year's last.
local function older(kind, us, than)
  local from, to = (us - us % 86400000000) / 86400000000, (than - than % 86400000000) / 86400000000
  if from >= to then return false end
  if kind == 1 then return true end
  local floor = math.floor
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

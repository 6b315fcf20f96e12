// Every reason that a condition of a PipelineDeployment can carry, with its meaning in one line.
// docs/troubleshooting.md has a section for each that is not well.
#ifndef ECHELON_OPERATOR_RECONCILE_REASONS_H_
#define ECHELON_OPERATOR_RECONCILE_REASONS_H_

namespace echelon::op::reason {

// All is well.
inline constexpr char kAvailable[] = "Available";  // enough groups have a ready head
inline constexpr char kComplete[] = "Complete";    // all that is wanted is there
inline constexpr char kAllReady[] = "AllReady";    // every wanted rank is ready
inline constexpr char kFormed[] = "Formed";        // every wanted group is formed
inline constexpr char kModelLoaded[] = "Loaded";   // every wanted rank has its part of the model
inline constexpr char kWithinLimits[] = "WithinLimits";  // no group has failed too often

// Under way.
inline constexpr char kExporting[] = "Exporting";        // a Job turns the directory into a .pt2
inline constexpr char kGroupForming[] = "GroupForming";  // pods start, join and load
inline constexpr char kLoading[] = "Loading";            // ranks load their part of the model
inline constexpr char kRollingOut[] = "RollingOut";      // groups of the old revision still leave
inline constexpr char kScaling[] = "Scaling";            // groups are added or removed

// Wanted so.
inline constexpr char kSuspended[] = "Suspended";        // spec.suspend
inline constexpr char kScaledToZero[] = "ScaledToZero";  // spec.replicas is 0

// Less than wanted.
inline constexpr char kTooFewReady[] = "TooFewReady";          // too few groups have a ready head
inline constexpr char kRanksMissing[] = "RanksMissing";        // wanted ranks are not ready
inline constexpr char kHeadUnreachable[] = "HeadUnreachable";  // /status of a head does not answer

// What keeps pods from serving, by its cause.
inline constexpr char kFailedCreate[] = "FailedCreate";          // the API server takes no pods
inline constexpr char kQuotaExceeded[] = "QuotaExceeded";        // a ResourceQuota is used up
inline constexpr char kPodSecurity[] = "PodSecurity";            // the namespace forbids such pods
inline constexpr char kFailedScheduling[] = "FailedScheduling";  // no node has room
inline constexpr char kRolloutBlocked[] = "RolloutBlocked";      // no room beside the old groups
inline constexpr char kSchedulingTimeout[] = "SchedulingTimeout";  // a group gave its pods back
inline constexpr char kVolumeMissing[] = "VolumeMissing";      // the volume claim does not exist
inline constexpr char kVolumeFailed[] = "VolumeFailed";        // a volume cannot be mounted
inline constexpr char kImagePull[] = "ImagePull";              // an image cannot be pulled
inline constexpr char kCreateContainer[] = "CreateContainer";  // a container cannot be made
inline constexpr char kCrashLoop[] = "CrashLoop";              // a rank ends again and again

// Given up, until something changes.
inline constexpr char kExportFailed[] = "ExportFailed";        // the export Job has failed
inline constexpr char kTooManyRestarts[] = "TooManyRestarts";  // more than failurePolicy allows
inline constexpr char kRankFailed[] = "RankFailed";  // one was enough: onRankFailure is None
inline constexpr char kProgressDeadlineExceeded[] =
    "ProgressDeadlineExceeded";  // no step forward for rollout.progressDeadlineSeconds

// Refused: nothing is made or changed. Deployment::invalid_reason adds those of the spec alone.
inline constexpr char kNameTaken[] = "NameTaken";  // one of our names is somebody else's object
inline constexpr char kVolumeNotShared[] =
    "VolumeNotShared";  // one node at a time may mount the volume, and there are more ranks
inline constexpr char kInvalidTemplate[] = "InvalidTemplate";  // the pod template is no pod

}  // namespace echelon::op::reason

#endif  // ECHELON_OPERATOR_RECONCILE_REASONS_H_
